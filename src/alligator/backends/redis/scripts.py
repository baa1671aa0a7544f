r"""The scripts of the Redis store: one for each change of state, so that each is one atomic step.

All keys of a queue begin with ``KEYS[1]``, "alligator:{<queue>}:", and so lie in one slot of a cluster::

    tasks         hash    id -> body, of every task that is waiting, delayed or held
    waiting       zset    id by order: the number it was given, less 2^45 for each step of its priority
    delayed       zset    id by the moment it is due; +inf: until someone says otherwise
    places        hash    id -> order, of delayed tasks that were given back as they were and keep it; of others
                          with a priority, that of its end: without a number, which it gets when it is due
    leases        zset    token by the moment its lease lapses
    held:<token>  hash    id -> order, of the tasks handed out under that token
    lapses        hash    id -> hand-outs with no outcome; only of tasks that had one
    follows       hash    id -> what follows it: MessagePack of id, on_success, on_failure; if anything does
    replacements  hash    id -> what replaces it: MessagePack of due moment, priority, body; only of held tasks
    seq           string  the last number given
    fence         string  the latest time, in milliseconds, of a hand-out that has ended while its task has not
    wake          list    at most one element, for those who wait: pushed when something is ready
    dead          zset    letter id by itself
    dead:ids      zset    "<task id>\n<letter id>", to find by task id
    dead:<letter> hash    task_id, body, note, buried_at; priority, if it has one

A task's id is in exactly one of waiting, delayed and a held:<token>. Moments are microseconds by the server's
clock, as whole numbers, which scores carry exactly until the year 2255; as arguments they may be "inf".

The scripts run with ``allow-oom``, for a server that is full must still be able to drain; but for those that
push, that put dead letters, and that set records. They need Redis 7.0 or Valkey for that.
"""

from alligator.backends.redis import record_scripts, task_scripts, walk_scripts
from alligator.backends.redis.lua import (
    FENCE,
    FOLLOW,
    GIVE_BACK,
    HAND_OUT,
    PLACES,
    PUSH_FROM,
    START,
    TAKE_PLACE,
)
from alligator.backends.redis.record_scripts import WRITE

# ARGV: id and body of each task; they have nothing else that is special. Returns for each 1 if it was
# queued, 0 if its id is queued or held already.
PUSH_PLAIN = (
    "#!lua\n"
    + START
    + """
local queued, ready = {}, {}
for i = 1, #ARGV, 2 do
  local new = redis.call('HSETNX', q .. 'tasks', ARGV[i], ARGV[i + 1])
  queued[#queued + 1] = new
  if new == 1 then
    ready[#ready + 1] = ARGV[i]
  end
end
if #ready == 1 then
  redis.call('ZADD', q .. 'waiting', redis.call('INCR', q .. 'seq'), ready[1])
  wake()
elseif #ready > 1 then
  local before, places = redis.call('INCRBY', q .. 'seq', #ready) - #ready, {}
  for i, id in ipairs(ready) do
    places[2 * i - 1], places[2 * i] = before + i, id
  end
  redis.call('ZADD', q .. 'waiting', unpack(places))
  wake()
end
return queued
"""
)

# ARGV: how many tasks may wait or be delayed (empty: any number); then nine values of each task, as PUSH_FROM
# says. Returns what that does; nothing if there is no room.
PUSH = (
    "#!lua\n"
    + START
    + PLACES
    + PUSH_FROM
    + """
local most = tonumber(ARGV[1])
if most then
  local new = 0
  for i = 2, #ARGV, 9 do
    new = new + 1 - redis.call('HEXISTS', q .. 'tasks', ARGV[i])
  end
  local length = redis.call('ZCARD', q .. 'waiting') + redis.call('ZCARD', q .. 'delayed')
  if new > 0 and length + new > most then
    return false
  end
end
return push_from(2)
"""
)

# KEYS: the queue's, a record, the index of its family. ARGV: old and new value of the record, then nine values
# of each task. Returns 1 if the record was as it should be, and so is swapped, and the tasks queued.
PUSH_IF = (
    "#!lua\n"
    + START
    + PLACES
    + PUSH_FROM
    + WRITE
    + """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
write(KEYS[2], KEYS[3], ARGV[2], 0, 0)
push_from(3)
return 1
"""
)

# ARGV: token but for its time, lease in microseconds, limit.
# Returns ids, bodies, lapses (empty where none has any), the microseconds until something becomes ready by
# itself (-1: nothing will), and the token.
RESERVE = (
    "#!lua flags=allow-oom\n"
    + START
    + HAND_OUT
    + """
local lease, limit, moment = ARGV[2], ARGV[3], now()

local due = redis.call('ZRANGE', q .. 'delayed', '-inf', moment, 'BYSCORE', 'LIMIT', 0, 1000)
if #due > 0 then
  local last, ready, places = redis.call('INCRBY', q .. 'seq', #due) - #due, {}, {}
  if redis.call('EXISTS', q .. 'places') == 1 then
    places = redis.call('HMGET', q .. 'places', unpack(due))
    redis.call('HDEL', q .. 'places', unpack(due))
  end
  for i, id in ipairs(due) do
    local order = places[i] or 0
    ready[2 * i - 1], ready[2 * i] = order % STEP > 0 and order or order + last + i, id
  end
  redis.call('ZREM', q .. 'delayed', unpack(due))
  redis.call('ZADD', q .. 'waiting', unpack(ready))
end

local lapsed = redis.call('ZRANGE', q .. 'leases', '-inf', moment, 'BYSCORE', 'LIMIT', 0, 10)
if #lapsed > 0 then
"""
    + PLACES
    + TAKE_PLACE
    + GIVE_BACK
    + """
  for _, old in ipairs(lapsed) do
    give_back(old, function() return true end)
  end
end

-- The microseconds until something becomes ready by itself; -1 if nothing will.
local function until_next()
  local soon = -1
  for _, name in ipairs({'delayed', 'leases'}) do
    local score = redis.call('ZRANGE', q .. name, 0, 0, 'WITHSCORES')[2]
    if score and score ~= 'inf' and (soon < 0 or score - moment < soon) then
      soon = math.max(0, score - moment)
    end
  end
  return soon
end

local first = redis.call('ZPOPMIN', q .. 'waiting', limit)
if #first == 0 then
  return {{}, {}, {}, until_next(), ''}
end

local token, ids = token_at(moment), {}
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
return {ids, redis.call('HMGET', q .. 'tasks', unpack(ids)), lapses, -1, token}
"""
)

# ARGV: token but for its time, lease in microseconds, id. Returns body, lapses and token, or nothing.
RESERVE_TASK = (
    "#!lua flags=allow-oom\n"
    + START
    + PLACES
    + HAND_OUT
    + """
local lease, id, moment = ARGV[2], ARGV[3], now()
local order = redis.call('ZSCORE', q .. 'waiting', id)
if order then
  redis.call('ZREM', q .. 'waiting', id)
elseif redis.call('ZREM', q .. 'delayed', id) == 1 then
  order = numbered(redis.call('HGET', q .. 'places', id) or 0)
  redis.call('HDEL', q .. 'places', id)
else
  return {}
end
local token = token_at(moment)
redis.call('HSET', q .. 'held:' .. token, id, order)
redis.call('ZADD', q .. 'leases', moment + lease, token)
return {redis.call('HGET', q .. 'tasks', id), redis.call('HGET', q .. 'lapses', id) or 0, token}
"""
)

# ARGV: one after the other
#   'ack' or, not succeeded, 'fail', token, how many, ids
#   'release', token, id, delay in microseconds, 1 if it lapsed, 1 if a body follows, body
#   'bury', token, id, note
# Returns the places, counted from 0 and each id of an ack as one, of those that came too late.
# What only some calls need is made within the blocks that need it, for that takes time.
SETTLE = (
    "#!lua flags=allow-oom\n"
    + START
    + """
local at, place, late, ready = 1, 0, {}, false
-- Most queues have none of these.
local has_more = redis.call('EXISTS', q .. 'follows', q .. 'replacements', q .. 'lapses') > 0
"""
    + FENCE
    + """
-- Let go of a task; return its order, or nothing if the token does not hold it.
local function let_go(token, id)
  local order = redis.call('HGET', q .. 'held:' .. token, id)
  if order then
    redis.call('HDEL', q .. 'held:' .. token, id)
    fence_off(token)
  else
    late[#late + 1] = place
  end
  place = place + 1
  return order
end

-- Tasks are over and gone. One that is replaced lives on, and so is not followed yet.
local function over(ids, succeeded)
  redis.call('HDEL', q .. 'tasks', unpack(ids))
  if not has_more then
    return
  end
  redis.call('HDEL', q .. 'lapses', unpack(ids))
  if redis.call('EXISTS', q .. 'follows', q .. 'replacements') > 0 then
"""
    + PLACES
    + TAKE_PLACE
    + FOLLOW
    + """
    for _, id in ipairs(ids) do
      ready = take_place(id) or follow(id, succeeded) or ready
    end
  end
end

local function ack(token, succeeded)
  local held, ids, ours = q .. 'held:' .. token, {}, {}
  for i = at + 3, at + 2 + ARGV[at + 2] do
    ids[#ids + 1] = ARGV[i]
  end
  at = at + 3 + #ids
  for i, order in ipairs(redis.call('HMGET', held, unpack(ids))) do
    if order then
      ours[#ours + 1] = ids[i]
    else
      late[#late + 1] = place
    end
    place = place + 1
  end
  if #ours > 0 then
    redis.call('HDEL', held, unpack(ours))
    over(ours, succeeded)
  end
end

local function release(token)
"""
    + PLACES
    + TAKE_PLACE
    + """
  local id, delay, lapsed = ARGV[at + 2], micros(ARGV[at + 3]), ARGV[at + 4] == '1'
  local has_body, body = ARGV[at + 5] == '1', ARGV[at + 6]
  at = at + 7
  local order = let_go(token, id)
  if not order then
    return
  end
  ready = true
  if has_more and take_place(id) then
    return
  end
  if has_body then
    redis.call('HSET', q .. 'tasks', id, body)
    redis.call('HDEL', q .. 'lapses', id)
  end
  if lapsed then
    redis.call('HINCRBY', q .. 'lapses', id, 1)
  end
  local moment = now()
  line_up(id, moment + delay, has_body and end_of(priority_of(order)) or tonumber(order), moment)
end

local function bury(token)
"""
    + PLACES
    + """
  local id, note = ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  local order = let_go(token, id)
  if not order then
    return
  end
  local letter, priority = redis.call('INCR', q .. 'seq'), priority_of(order)
  redis.call('HSET', q .. 'dead:' .. letter, 'task_id', id, 'note', note, 'buried_at', now(),
    'body', redis.call('HGET', q .. 'tasks', id) or '')
  if priority ~= 0 then
    redis.call('HSET', q .. 'dead:' .. letter, 'priority', priority)
  end
  redis.call('ZADD', q .. 'dead', letter, letter)
  redis.call('ZADD', q .. 'dead:ids', 0, id .. '\\n' .. letter)
  over({id}, false)
end

while at <= #ARGV do
  local what, token = ARGV[at], ARGV[at + 1]
  if what == 'release' then
    release(token)
  elseif what == 'bury' then
    bury(token)
  else
    ack(token, what == 'ack')
  end
  if redis.call('EXISTS', q .. 'held:' .. token) == 0 then
    redis.call('ZREM', q .. 'leases', token)
  end
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
    + START
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
    + START
    + PLACES
    + TAKE_PLACE
    + GIVE_BACK
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

ALL = (
    PUSH_PLAIN,
    PUSH,
    PUSH_IF,
    RESERVE,
    RESERVE_TASK,
    SETTLE,
    EXTEND,
    RECOVER,
    *task_scripts.ALL,
    *walk_scripts.ALL,
    *record_scripts.ALL,
)
