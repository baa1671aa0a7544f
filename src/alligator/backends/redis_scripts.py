r"""The scripts of the Redis store: one for each change of state, so that each is one atomic step.

All keys of a queue begin with ``KEYS[1]``, "alligator:{<queue>}:", and so lie in one slot of a cluster::

    tasks         hash    id -> body, of every task that is waiting, delayed or held
    waiting       zset    id by order: the number it was pushed under
    delayed       zset    id by the moment it is due
    leases        zset    token by the moment its lease lapses
    held:<token>  hash    id -> order, of the tasks handed out under that token
    lapses        hash    id -> hand-outs with no outcome; only of tasks that had one
    seq           string  the last number given
    wake          list    at most one element, for those who wait: pushed when something is ready
    dead          zset    letter id by itself
    dead:ids      zset    "<task id>\n<letter id>", to find by task id
    dead:<letter> hash    task_id, body, note, buried_at

A task's id is in exactly one of waiting, delayed and a held:<token>. Moments are microseconds by the server's
clock, as whole numbers, which scores carry exactly until the year 2255.

The scripts but for PUSH run with ``allow-oom``: a server that is full must still be able to drain. They need
Redis 7.0 or Valkey for that.
"""

_START = """
local q = KEYS[1]
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
-- One who waits is enough: it wakes the next one if there is more than it can take.
local function wake()
  if redis.call('LLEN', q .. 'wake') == 0 then
    redis.call('RPUSH', q .. 'wake', 1)
  end
end
"""

# The task's order is the place it returns to.
_GIVE_BACK = """
local function give_back(token, counts)
  local held = redis.call('HGETALL', q .. 'held:' .. token)
  local back = {}
  for i = 1, #held, 2 do
    back[i], back[i + 1] = held[i + 1], held[i]
    if counts(held[i]) then
      redis.call('HINCRBY', q .. 'lapses', held[i], 1)
    end
  end
  redis.call('DEL', q .. 'held:' .. token)
  redis.call('ZREM', q .. 'leases', token)
  if #back > 0 then
    redis.call('ZADD', q .. 'waiting', unpack(back))
  end
  return #back / 2
end
"""

# ARGV: id, body, delay, due_at of each task; the times in microseconds.
# Returns for each 1 if it was queued, 0 if its id is queued or held already.
PUSH = (
    "#!lua\n"
    + _START
    + """
local queued, ready = {}, false
for i = 1, #ARGV, 4 do
  local id, new = ARGV[i], redis.call('HSETNX', q .. 'tasks', ARGV[i], ARGV[i + 1])
  queued[#queued + 1] = new
  if new == 1 then
    local due, moment = 0, 0
    if ARGV[i + 2] ~= '0' or ARGV[i + 3] ~= '0' then
      moment = now()
      due = math.max(moment + ARGV[i + 2], tonumber(ARGV[i + 3]))
    end
    if due > moment then
      redis.call('ZADD', q .. 'delayed', due, id)
      -- Whoever waits does so until the first is due: if that is this one, it must wait anew.
      ready = ready or redis.call('ZRANK', q .. 'delayed', id) == 0
    else
      redis.call('ZADD', q .. 'waiting', redis.call('INCR', q .. 'seq'), id)
      ready = true
    end
  end
end
if ready then
  wake()
end
return queued
"""
)

# ARGV: token, lease in microseconds, limit.
# Returns ids, bodies, lapses (empty where none has any), and the microseconds until something
# becomes ready by itself (-1: nothing will).
RESERVE = (
    "#!lua flags=allow-oom\n"
    + _START
    + _GIVE_BACK
    + """
local token, lease, limit, moment = ARGV[1], ARGV[2], ARGV[3], now()

local due = redis.call('ZRANGE', q .. 'delayed', '-inf', moment, 'BYSCORE', 'LIMIT', 0, 1000)
if #due > 0 then
  local order, ready = redis.call('INCRBY', q .. 'seq', #due) - #due, {}
  for i, id in ipairs(due) do
    ready[2 * i - 1], ready[2 * i] = order + i, id
  end
  redis.call('ZREM', q .. 'delayed', unpack(due))
  redis.call('ZADD', q .. 'waiting', unpack(ready))
end

local lapsed = redis.call('ZRANGE', q .. 'leases', '-inf', moment, 'BYSCORE', 'LIMIT', 0, 10)
for _, old in ipairs(lapsed) do
  give_back(old, function() return true end)
end

-- The microseconds until something becomes ready by itself; -1 if nothing will.
local function until_next()
  local soon = -1
  for _, name in ipairs({'delayed', 'leases'}) do
    local score = redis.call('ZRANGE', q .. name, 0, 0, 'WITHSCORES')[2]
    if score and (soon < 0 or score - moment < soon) then
      soon = math.max(0, score - moment)
    end
  end
  return soon
end

local first = redis.call('ZPOPMIN', q .. 'waiting', limit)
if #first == 0 then
  return {{}, {}, {}, until_next()}
end

local ids = {}
for i = 1, #first, 2 do
  ids[#ids + 1] = first[i]
end
redis.call('HSET', q .. 'held:' .. token, unpack(first))
redis.call('ZADD', q .. 'leases', moment + lease, token)
-- This worker is busy from here on: if there is more, or will be before the others look by themselves,
-- another one has to see to it.
if redis.call('EXISTS', q .. 'waiting') == 1 or until_next() < 5000000 then
  wake()
end
local lapses = {}
if redis.call('EXISTS', q .. 'lapses') == 1 then
  lapses = redis.call('HMGET', q .. 'lapses', unpack(ids))
end
return {ids, redis.call('HMGET', q .. 'tasks', unpack(ids)), lapses, -1}
"""
)

# ARGV: token, lease in microseconds, id. Returns body and lapses, or nothing.
RESERVE_TASK = (
    "#!lua flags=allow-oom\n"
    + _START
    + """
local token, lease, id = ARGV[1], ARGV[2], ARGV[3]
local order = redis.call('ZSCORE', q .. 'waiting', id)
if order then
  redis.call('ZREM', q .. 'waiting', id)
elseif redis.call('ZREM', q .. 'delayed', id) == 1 then
  order = redis.call('INCR', q .. 'seq')
else
  return {}
end
redis.call('HSET', q .. 'held:' .. token, id, order)
redis.call('ZADD', q .. 'leases', now() + lease, token)
return {redis.call('HGET', q .. 'tasks', id), redis.call('HGET', q .. 'lapses', id) or 0}
"""
)

# ARGV: one after the other
#   'ack', token, how many, ids
#   'release', token, id, delay in microseconds, 1 if it lapsed, 1 if a body follows, body
#   'bury', token, id, note
# Returns the places, counted from 0 and each id of an ack as one, of those that came too late.
SETTLE = (
    "#!lua flags=allow-oom\n"
    + _START
    + """
local at, place, late, ready = 1, 0, {}, false

-- Let go of a task; return its order, or nothing if the token does not hold it.
local function let_go(token, id)
  local order = redis.call('HGET', q .. 'held:' .. token, id)
  if order then
    redis.call('HDEL', q .. 'held:' .. token, id)
  else
    late[#late + 1] = place
  end
  place = place + 1
  return order
end

local function end_empty_lease(token)
  if redis.call('EXISTS', q .. 'held:' .. token) == 0 then
    redis.call('ZREM', q .. 'leases', token)
  end
end

local settle = {}

function settle.ack(token)
  local ids, ours = {}, {}
  for i = at + 3, at + 2 + ARGV[at + 2] do
    ids[#ids + 1] = ARGV[i]
  end
  at = at + 3 + #ids
  for i, order in ipairs(redis.call('HMGET', q .. 'held:' .. token, unpack(ids))) do
    if order then
      ours[#ours + 1] = ids[i]
    else
      late[#late + 1] = place
    end
    place = place + 1
  end
  if #ours > 0 then
    redis.call('HDEL', q .. 'held:' .. token, unpack(ours))
    redis.call('HDEL', q .. 'tasks', unpack(ours))
    redis.call('HDEL', q .. 'lapses', unpack(ours))
  end
end

function settle.release(token)
  local id, delay, lapsed = ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4] == '1'
  local has_body, body = ARGV[at + 5] == '1', ARGV[at + 6]
  at = at + 7
  local order = let_go(token, id)
  if not order then
    return
  end
  if has_body then
    redis.call('HSET', q .. 'tasks', id, body)
    redis.call('HDEL', q .. 'lapses', id)
    order = redis.call('INCR', q .. 'seq')
  end
  if lapsed then
    redis.call('HINCRBY', q .. 'lapses', id, 1)
  end
  if delay > 0 then
    redis.call('ZADD', q .. 'delayed', now() + delay, id)
  else
    redis.call('ZADD', q .. 'waiting', order, id)
  end
  ready = true
end

function settle.bury(token)
  local id, note = ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  if not let_go(token, id) then
    return
  end
  local letter = redis.call('INCR', q .. 'seq')
  redis.call('HSET', q .. 'dead:' .. letter, 'task_id', id, 'note', note, 'buried_at', now(),
    'body', redis.call('HGET', q .. 'tasks', id) or '')
  redis.call('ZADD', q .. 'dead', letter, letter)
  redis.call('ZADD', q .. 'dead:ids', 0, id .. '\\n' .. letter)
  redis.call('HDEL', q .. 'tasks', id)
  redis.call('HDEL', q .. 'lapses', id)
end

while at <= #ARGV do
  local token = ARGV[at + 1]
  settle[ARGV[at]](token)
  end_empty_lease(token)
end
-- Those who wait learn of what is ready, and of one who leaves and may have taken their wake-up along.
if ready or redis.call('EXISTS', q .. 'waiting') == 1 then
  wake()
end
return late
"""
)

# ARGV: lease in microseconds; then token, how many, ids, and so on.
# Returns token and id of each that is held no more.
EXTEND = (
    "#!lua flags=allow-oom\n"
    + _START
    + """
local at, lost, lapses_at = 2, {}, now() + ARGV[1]
while at <= #ARGV do
  local token, ids = ARGV[at], {}
  for i = at + 2, at + 1 + ARGV[at + 1] do
    ids[#ids + 1] = ARGV[i]
  end
  at = at + 2 + #ids
  local holds = false
  for i, order in ipairs(redis.call('HMGET', q .. 'held:' .. token, unpack(ids))) do
    if order then
      holds = true
    else
      lost[#lost + 1], lost[#lost + 2] = token, ids[i]
    end
  end
  if holds then
    redis.call('ZADD', q .. 'leases', lapses_at, token)
  end
end
return lost
"""
)

# ARGV: worker, then ids of tasks that it had started. Returns how many tasks were given back.
RECOVER = (
    "#!lua flags=allow-oom\n"
    + _START
    + _GIVE_BACK
    + """
local mine, started, count = ARGV[1] .. '.', {}, 0
for i = 2, #ARGV do
  started[ARGV[i]] = true
end
for _, token in ipairs(redis.call('ZRANGE', q .. 'leases', 0, -1)) do
  if string.sub(token, 1, #mine) == mine then
    count = count + give_back(token, function(id) return started[id] end)
  end
end
if count > 0 then
  wake()
end
return count
"""
)

# ARGV: id. Returns the body, or nothing.
CANCEL = (
    "#!lua flags=allow-oom\n"
    + _START
    + """
local id = ARGV[1]
if redis.call('ZREM', q .. 'waiting', id) + redis.call('ZREM', q .. 'delayed', id) == 0 then
  return false
end
local body = redis.call('HGET', q .. 'tasks', id)
redis.call('HDEL', q .. 'tasks', id)
redis.call('HDEL', q .. 'lapses', id)
return body
"""
)

# Drops some; returns how many. To be called until that is 0.
DROP = (
    "#!lua flags=allow-oom\n"
    + _START
    + """
local count = 0
for _, name in ipairs({'waiting', 'delayed'}) do
  local ids = redis.call('ZRANGE', q .. name, 0, 999)
  if #ids > 0 then
    redis.call('ZREM', q .. name, unpack(ids))
    redis.call('HDEL', q .. 'tasks', unpack(ids))
    redis.call('HDEL', q .. 'lapses', unpack(ids))
    count = count + #ids
  end
end
return count
"""
)

# Returns waiting, delayed, running, dead.
COUNT = (
    "#!lua flags=no-writes\n"
    + _START
    + """
local waiting, delayed = redis.call('ZCARD', q .. 'waiting'), redis.call('ZCARD', q .. 'delayed')
return {waiting, delayed, redis.call('HLEN', q .. 'tasks') - waiting - delayed,
  redis.call('ZCARD', q .. 'dead')}
"""
)

# ARGV: skip, limit, and perhaps a task id. Returns for each its letter id and its fields.
DEAD = (
    "#!lua flags=no-writes\n"
    + _START
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
  found[i] = redis.call('HMGET', q .. 'dead:' .. letter, 'task_id', 'body', 'note', 'buried_at')
  table.insert(found[i], 1, tostring(letter))
end
return found
"""
)

# ARGV: 1 to queue them again or 0 to remove them; then letter ids. Returns the letter ids so treated.
EMPTY_DEAD = (
    "#!lua flags=allow-oom\n"
    + _START
    + """
local retry, treated = ARGV[1] == '1', {}
for i = 2, #ARGV do
  local letter = ARGV[i]
  local fields = redis.call('HMGET', q .. 'dead:' .. letter, 'task_id', 'body')
  local id, body = fields[1], fields[2]
  if id and (not retry or redis.call('HSETNX', q .. 'tasks', id, body) == 1) then
    if retry then
      redis.call('ZADD', q .. 'waiting', redis.call('INCR', q .. 'seq'), id)
    end
    redis.call('DEL', q .. 'dead:' .. letter)
    redis.call('ZREM', q .. 'dead', letter)
    redis.call('ZREM', q .. 'dead:ids', id .. '\\n' .. letter)
    treated[#treated + 1] = letter
  end
end
if retry and #treated > 0 then
  wake()
end
return treated
"""
)

# KEYS: record, index of its family. ARGV: old value, new value, ttl in microseconds (0: none), and
# "any", "no" or "yes": whether there must be an old value. Returns 1 if it was written.
SWAP = """#!lua
local old, new, ttl, has_old = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if has_old ~= 'any' and redis.call('GET', KEYS[1]) ~= (has_old == 'yes' and old) then
  return 0
end
if ttl > 0 then
  redis.call('SET', KEYS[1], new, 'PX', math.ceil(ttl / 1000))
else
  redis.call('SET', KEYS[1], new)
end
redis.call('ZADD', KEYS[2], ttl > 0 and now + ttl or '+inf', KEYS[1])
for _, key in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE', 'LIMIT', 0, 2)) do
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', KEYS[2], key)
  end
end
return 1
"""
ALL = (
    PUSH,
    RESERVE,
    RESERVE_TASK,
    SETTLE,
    EXTEND,
    RECOVER,
    CANCEL,
    DROP,
    COUNT,
    DEAD,
    EMPTY_DEAD,
    SWAP,
)
