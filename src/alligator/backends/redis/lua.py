"""What several scripts of the Redis store have in common; what the keys are stands in redis/scripts.py."""

from alligator.backends.base import MAX_PRIORITY

STEP = 2**45
"""Between the orders of two priorities: a score's 53 bits hold them all, and 35 million million tasks."""
FOLLOWS = MAX_PRIORITY + 1
"""The priority of what follows a task: above those that a message can have."""

START = (
    f"""
local STEP, FOLLOWS = {STEP}, {FOLLOWS}
"""
    + """
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
)

PLACES = """
local function priority_of(order)
  return 0 - math.floor(order / STEP)
end
-- The order that stands for the end of a priority: without a number, which is given to what is ready.
local function end_of(priority)
  return 0 - priority * STEP
end
local function numbered(order)
  return order % STEP > 0 and order or order + redis.call('INCR', q .. 'seq')
end
local function micros(text)
  return text == 'inf' and math.huge or tonumber(text)
end
-- Let a task be delayed until a moment, or else wait. Returns whether one who waits must be woken.
local function line_up(id, due, order, moment)
  if due <= moment then
    redis.call('ZADD', q .. 'waiting', numbered(order), id)
    return true
  end
  redis.call('ZADD', q .. 'delayed', due == math.huge and '+inf' or due, id)
  if order ~= 0 then
    redis.call('HSET', q .. 'places', id, order)
  end
  -- Whoever waits does so until the first is due: if that is this one, it must wait anew.
  return due < math.huge and redis.call('ZRANK', q .. 'delayed', id) == 0
end
"""

# The token of a hand-out, as base.token_of makes it: by the server's own clock, but behind the fence.
HAND_OUT = """
local function token_at(moment)
  local at = math.max(moment / 1000, (redis.call('GET', q .. 'fence') or 0) + 1)
  return ARGV[1] .. '.' .. string.format('%.0f', at)
end
"""

# A hand-out has ended, and its task has not. The token of its next one must have a later time, even if another
# server has taken over by then, whose clock is behind.
FENCE = """
local function fence_off(token)
  local at = tonumber(string.match(token, '%d+$'))
  if at and at > tonumber(redis.call('GET', q .. 'fence') or 0) then
    redis.call('SET', q .. 'fence', string.format('%.0f', at))
  end
end
"""

# A hand-out has ended, and the id lives on: what was set aside for it becomes the task. Returns whether
# there was anything.
TAKE_PLACE = """
local function take_place(id)
  local replacement = redis.call('HGET', q .. 'replacements', id)
  if not replacement then
    return false
  end
  local due, priority, body = cmsgpack.unpack(replacement)
  redis.call('HDEL', q .. 'replacements', id)
  redis.call('HSET', q .. 'tasks', id, body)
  redis.call('HDEL', q .. 'lapses', id)
  line_up(id, due, end_of(priority), now())
  return true
end
"""

# A task is over and gone: what follows it is queued. Returns whether there was anything to queue.
FOLLOW = """
local function follow(id, succeeded)
  local packed = redis.call('HGET', q .. 'follows', id)
  if not packed then
    return false
  end
  local next_id, on_success, on_failure = cmsgpack.unpack(packed)
  redis.call('HDEL', q .. 'follows', id)
  local new = redis.call('HSETNX', q .. 'tasks', next_id, succeeded and on_success or on_failure)
  if new == 1 then
    redis.call('ZADD', q .. 'waiting', numbered(end_of(FOLLOWS)), next_id)
  end
  return new == 1
end
"""

# All that a token holds returns to its place.
GIVE_BACK = (
    FENCE
    + """
local function give_back(token, counts)
  local held, back = redis.call('HGETALL', q .. 'held:' .. token), {}
  local is_replaced = redis.call('EXISTS', q .. 'replacements') == 1
  for i = 1, #held, 2 do
    local id, order = held[i], held[i + 1]
    if not (is_replaced and take_place(id)) then
      back[#back + 1] = order
      back[#back + 1] = id
      if counts(id) then
        redis.call('HINCRBY', q .. 'lapses', id, 1)
      end
    end
  end
  redis.call('DEL', q .. 'held:' .. token)
  redis.call('ZREM', q .. 'leases', token)
  fence_off(token)
  if #back > 0 then
    redis.call('ZADD', q .. 'waiting', unpack(back))
  end
  return #held / 2
end
"""
)

# Queues the messages that stand in ARGV from ``at`` on, nine values each: id, body, delay, due_at, priority,
# 1 if it replaces, and of its follow the id (empty: none), on_success, on_failure. Returns for each 1 if it
# was queued or replaces another, 0 if its id is queued or held already.
PUSH_FROM = """
-- Let a task be another one, if nobody holds it. Returns whether it is so.
local function change(id, body)
  if redis.call('ZREM', q .. 'waiting', id) + redis.call('ZREM', q .. 'delayed', id) == 0 then
    return false
  end
  redis.call('HSET', q .. 'tasks', id, body)
  redis.call('HDEL', q .. 'lapses', id)
  redis.call('HDEL', q .. 'places', id)
  return true
end

local function push_from(at)
  local queued, ready, moment = {}, false, now()
  for i = at, #ARGV, 9 do
    local id, body, next_id = ARGV[i], ARGV[i + 1], ARGV[i + 6]
    local due = math.max(moment + micros(ARGV[i + 2]), micros(ARGV[i + 3]))
    local priority, replaces = tonumber(ARGV[i + 4]), ARGV[i + 5] == '1'
    local is_new = redis.call('HSETNX', q .. 'tasks', id, body) == 1
    if is_new or (replaces and change(id, body)) then
      ready = line_up(id, due, end_of(priority), moment) or ready
    elseif replaces then
      redis.call('HSET', q .. 'replacements', id, cmsgpack.pack(due, priority, body))
    end
    if next_id ~= '' and (is_new or replaces) then
      redis.call('HSETNX', q .. 'follows', id, cmsgpack.pack(next_id, ARGV[i + 7], ARGV[i + 8]))
    end
    queued[#queued + 1] = (is_new or replaces) and 1 or 0
  end
  if ready then
    wake()
  end
  return queued
end
"""
