"""The scripts of the Redis store that go through a queue, and take out and put in what is moved.

What the keys are stands in redis/scripts.py.
"""

from alligator.backends.redis.lua import PLACES, START
from alligator.backends.redis.record_scripts import WRITE

# ARGV: "waiting" or "delayed", limit; score and id of the last one of the page before, if there was any. Of
# one that is gone since, what had a lower score has been met. Returns for each id, score, body, priority, and
# of its follow the id, on_success, on_failure; or only the first four.
WALK = (
    "#!lua flags=no-writes\n"
    + START
    + PLACES
    + """
local set, limit, score, last = q .. ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local first = 0
if score then
  if redis.call('ZSCORE', set, last) == score then
    first = redis.call('ZRANK', set, last) + 1
  else
    first = redis.call('ZCOUNT', set, '-inf', '(' .. score)
  end
end
local listed, found = {}, redis.call('ZRANGE', set, first, first + limit - 1, 'WITHSCORES')
for i = 1, #found, 2 do
  local id, at = found[i], found[i + 1]
  local order = ARGV[1] == 'waiting' and at or redis.call('HGET', q .. 'places', id) or 0
  local one = {id, at, redis.call('HGET', q .. 'tasks', id) or '', priority_of(order)}
  local packed = redis.call('HGET', q .. 'follows', id)
  if packed then
    one[5], one[6], one[7] = cmsgpack.unpack(packed)
  end
  listed[#listed + 1] = one
end
return listed
"""
)

# ARGV: a cursor over the hand-outs, "0" at first. Returns the next one, "0" at the end; then for each task what
# WALK does, with the token for a score.
WALK_HELD = (
    "#!lua flags=no-writes\n"
    + START
    + PLACES
    + """
local reply = redis.call('ZSCAN', q .. 'leases', ARGV[1], 'COUNT', 10)
local listed = {reply[1]}
for i = 1, #reply[2], 2 do
  local token = reply[2][i]
  local held = redis.call('HGETALL', q .. 'held:' .. token)
  for j = 1, #held, 2 do
    local id = held[j]
    local one = {id, token, redis.call('HGET', q .. 'tasks', id) or '', priority_of(held[j + 1])}
    local packed = redis.call('HGET', q .. 'follows', id)
    if packed then
      one[5], one[6], one[7] = cmsgpack.unpack(packed)
    end
    listed[#listed + 1] = one
  end
end
return listed
"""
)

# KEYS: the queue's, a record, the index of the notes, a note for each task. ARGV: the value that the record
# must have, and that is noted; then of each task id, body, moment (0: it waits), priority, and the id of what
# follows it (empty: nothing). Returns for each 1 if it was so, and is taken out.
TAKE_OUT = (
    "#!lua flags=allow-oom\n"
    + START
    + PLACES
    + WRITE
    + """
local value, taken = ARGV[1], {}
local may = redis.call('GET', KEYS[2]) == value

local function is_as_listed(id, body, due, priority, next_id)
  local order, at = redis.call('ZSCORE', q .. 'waiting', id), redis.call('ZSCORE', q .. 'delayed', id)
  if not order and not at then
    return false
  end
  order = order or redis.call('HGET', q .. 'places', id) or 0
  local packed = redis.call('HGET', q .. 'follows', id)
  local follows = packed and cmsgpack.unpack(packed) or ''
  return micros(at or '0') == due and priority_of(order) == priority and follows == next_id
    and redis.call('HGET', q .. 'tasks', id) == body
end

for i = 2, #ARGV, 5 do
  local id, place = ARGV[i], #taken + 1
  taken[place] = 0
  if may and is_as_listed(id, ARGV[i + 1], micros(ARGV[i + 2]), tonumber(ARGV[i + 3]), ARGV[i + 4]) then
    redis.call('ZREM', q .. 'waiting', id)
    redis.call('ZREM', q .. 'delayed', id)
    redis.call('HDEL', q .. 'tasks', id)
    redis.call('HDEL', q .. 'lapses', id)
    redis.call('HDEL', q .. 'places', id)
    redis.call('HDEL', q .. 'follows', id)
    write(KEYS[place + 3], KEYS[3], value, 0, 0)
    taken[place] = 1
  end
end
return taken
"""
)

# ARGV: of each dead letter task id, body, note, buried_at, priority. Returns for each 1 if it was put, 0 if it
# is there.
PUT_DEAD = (
    "#!lua\n"
    + START
    + """
local function is_there(id, body, note, buried_at)
  local found = redis.call('ZRANGE', q .. 'dead:ids', '(' .. id .. '\\n:', '[' .. id .. '\\n',
    'BYLEX', 'REV')
  for _, pair in ipairs(found) do
    local letter = string.sub(pair, #id + 2)
    local told = redis.call('HMGET', q .. 'dead:' .. letter, 'body', 'note', 'buried_at')
    if told[1] == body and told[2] == note and told[3] == buried_at then
      return true
    end
  end
  return false
end

local put = {}
for i = 1, #ARGV, 5 do
  local id, body, note, buried_at, priority = unpack(ARGV, i, i + 4)
  if is_there(id, body, note, buried_at) then
    put[#put + 1] = 0
  else
    local letter = redis.call('INCR', q .. 'seq')
    redis.call('HSET', q .. 'dead:' .. letter, 'task_id', id, 'note', note, 'buried_at', buried_at,
      'body', body)
    if priority ~= '0' then
      redis.call('HSET', q .. 'dead:' .. letter, 'priority', priority)
    end
    redis.call('ZADD', q .. 'dead', letter, letter)
    redis.call('ZADD', q .. 'dead:ids', 0, id .. '\\n' .. letter)
    put[#put + 1] = 1
  end
end
return put
"""
)

ALL = (WALK, WALK_HELD, TAKE_OUT, PUT_DEAD)
