"""The scripts of the Redis store about tasks that nobody holds, about dead letters, and those that only look.

What the keys are stands in redis/scripts.py.
"""

from alligator.backends.redis.lua import FOLLOW, PLACES, START

# Forgets a queue that holds nothing. Returns 1 if it was one.
FORGET = (
    "#!lua flags=allow-oom\n"
    + START
    + """
if redis.call('EXISTS', q .. 'tasks', q .. 'leases', q .. 'dead') > 0 then
  return 0
end
redis.call('DEL', q .. 'seq', q .. 'fence', q .. 'wake')
return 1
"""
)

# ARGV: id. Returns the body, or nothing; what would replace a held task is forgotten.
CANCEL = (
    "#!lua flags=allow-oom\n"
    + START
    + PLACES
    + FOLLOW
    + """
local id = ARGV[1]
if redis.call('ZREM', q .. 'waiting', id) + redis.call('ZREM', q .. 'delayed', id) == 0 then
  redis.call('HDEL', q .. 'replacements', id)
  return false
end
local body = redis.call('HGET', q .. 'tasks', id)
redis.call('HDEL', q .. 'tasks', id)
redis.call('HDEL', q .. 'lapses', id)
redis.call('HDEL', q .. 'places', id)
if follow(id, false) then
  wake()
end
return body
"""
)

# Drops some. ARGV: at first nothing; then, until the first value returned is 0, the second. Returns how many
# were dropped, and the number after which what follows a task is new, and so stays.
DROP = (
    "#!lua flags=allow-oom\n"
    + START
    + PLACES
    + FOLLOW
    + """
local last = tonumber(ARGV[1] or redis.call('GET', q .. 'seq') or 0)
local newest, others = last - FOLLOWS * STEP, (1 - FOLLOWS) * STEP
local dropped, ready = {}, false

local function drop(ids)
  if #ids > 0 then
    redis.call('ZREM', q .. 'waiting', unpack(ids))
    redis.call('ZREM', q .. 'delayed', unpack(ids))
    redis.call('HDEL', q .. 'tasks', unpack(ids))
    redis.call('HDEL', q .. 'lapses', unpack(ids))
    redis.call('HDEL', q .. 'places', unpack(ids))
    for _, id in ipairs(ids) do
      dropped[#dropped + 1] = id
    end
  end
end

-- Drop what follows a task if its own turn to be dropped is still to come: else it would be in its way.
local function drop_following(id)
  local packed = redis.call('HGET', q .. 'follows', id)
  local next_id = packed and cmsgpack.unpack(packed)
  if next_id and #dropped < 5000 then
    local order = redis.call('ZSCORE', q .. 'waiting', next_id)
    local is_new = order and tonumber(order) > newest and tonumber(order) < others
    if redis.call('ZSCORE', q .. 'delayed', next_id) or (order and not is_new) then
      drop({next_id})
    end
  end
end

local function waiting(from, to)
  return redis.call('ZRANGE', q .. 'waiting', from, to, 'BYSCORE', 'LIMIT', 0, 1000)
end

redis.call('UNLINK', q .. 'replacements')
drop(redis.call('ZRANGE', q .. 'delayed', 0, 999))
drop(waiting(others, '+inf'))
drop(waiting('-inf', newest))
if redis.call('EXISTS', q .. 'follows') == 1 then
  local at = 1
  while at <= #dropped do
    drop_following(dropped[at])
    ready = follow(dropped[at], false) or ready
    at = at + 1
  end
end
if ready then
  wake()
end
return {#dropped, last}
"""
)

# ARGV: the moment, then ids. Returns for each 1 if it was delayed.
RESCHEDULE = (
    "#!lua flags=allow-oom\n"
    + START
    + PLACES
    + """
local due, moment, delayed, ready = micros(ARGV[1]), now(), {}, false
for i = 2, #ARGV do
  local id = ARGV[i]
  delayed[i - 1] = redis.call('ZREM', q .. 'delayed', id)
  if delayed[i - 1] == 1 then
    local order = tonumber(redis.call('HGET', q .. 'places', id) or 0)
    redis.call('HDEL', q .. 'places', id)
    ready = line_up(id, due, order, moment) or ready
  end
end
if ready then
  wake()
end
return delayed
"""
)

# ARGV: id; of what follows it the id, on_success, on_failure. Returns 0 if there is no such task.
WATCH = (
    "#!lua flags=allow-oom\n"
    + START
    + """
local id = ARGV[1]
if redis.call('HEXISTS', q .. 'tasks', id) == 0 then
  return 0
end
redis.call('HSETNX', q .. 'follows', id, cmsgpack.pack(ARGV[2], ARGV[3], ARGV[4]))
return 1
"""
)

# ARGV: id. Returns body; when it is due (of a delayed one, else empty); its token and when that lapses (of a
# held one, else empty); its place, counted from 0 (of a waiting one, else nothing); lapses, priority.
# Returns nothing of a task that is not there. Which hand-out holds one is looked for among them all, so that
# handing out need not write it down.
FIND = (
    "#!lua flags=no-writes\n"
    + START
    + PLACES
    + """
local id = ARGV[1]
local body = redis.call('HGET', q .. 'tasks', id)
if not body then
  return {}
end
local lapses = redis.call('HGET', q .. 'lapses', id) or 0
local order, due = redis.call('ZSCORE', q .. 'waiting', id), redis.call('ZSCORE', q .. 'delayed', id)
if order then
  local place = redis.call('ZRANK', q .. 'waiting', id)
  return {body, '', '', '', place, lapses, priority_of(order)}
end
if due then
  order = redis.call('HGET', q .. 'places', id) or 0
  return {body, due, '', '', false, lapses, priority_of(order)}
end
local leases = redis.call('ZRANGE', q .. 'leases', 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  order = redis.call('HGET', q .. 'held:' .. leases[i], id)
  if order then
    return {body, '', leases[i], leases[i + 1], false, lapses, priority_of(order)}
  end
end
return {}
"""
)

# Returns waiting, delayed, running, dead.
COUNT = (
    "#!lua flags=no-writes\n"
    + START
    + """
local waiting, delayed = redis.call('ZCARD', q .. 'waiting'), redis.call('ZCARD', q .. 'delayed')
return {waiting, delayed, redis.call('HLEN', q .. 'tasks') - waiting - delayed,
  redis.call('ZCARD', q .. 'dead')}
"""
)

# ARGV: skip, limit, and perhaps a task id. Returns for each its letter id and its fields.
DEAD = (
    "#!lua flags=no-writes\n"
    + START
    + """
local skip, limit, id = ARGV[1], ARGV[2], ARGV[3]
local letters = {}
if id then
  local found = redis.call('ZRANGE', q .. 'dead:ids', '(' .. id .. '\\n:', '[' .. id .. '\\n',
    'BYLEX', 'REV')
  for _, pair in ipairs(found) do
    letters[#letters + 1] = tonumber(string.sub(pair, #id + 2))
  end
  table.sort(letters, function(a, b) return a > b end)
  letters = {unpack(letters, skip + 1, math.min(#letters, skip + limit))}
else
  letters = redis.call('ZRANGE', q .. 'dead', skip, skip + limit - 1, 'REV')
end
local found = {}
for i, letter in ipairs(letters) do
  found[i] = redis.call('HMGET', q .. 'dead:' .. letter, 'task_id', 'body', 'note', 'buried_at',
    'priority')
  table.insert(found[i], 1, tostring(letter))
end
return found
"""
)

# ARGV: when they are due if they are to be queued again, or empty to remove them; then letter ids. Returns
# the letter ids so treated.
EMPTY_DEAD = (
    "#!lua flags=allow-oom\n"
    + START
    + PLACES
    + """
local due, moment, treated, ready = micros(ARGV[1]), now(), {}, false
for i = 2, #ARGV do
  local letter = ARGV[i]
  local fields = redis.call('HMGET', q .. 'dead:' .. letter, 'task_id', 'body', 'priority')
  local id, body, priority = fields[1], fields[2], tonumber(fields[3] or 0)
  if id and (not due or redis.call('HSETNX', q .. 'tasks', id, body) == 1) then
    if due then
      ready = line_up(id, due, end_of(priority), moment) or ready
    end
    redis.call('DEL', q .. 'dead:' .. letter)
    redis.call('ZREM', q .. 'dead', letter)
    redis.call('ZREM', q .. 'dead:ids', id .. '\\n' .. letter)
    treated[#treated + 1] = letter
  end
end
if ready then
  wake()
end
return treated
"""
)

ALL = (FORGET, CANCEL, DROP, RESCHEDULE, WATCH, FIND, COUNT, DEAD, EMPTY_DEAD)
