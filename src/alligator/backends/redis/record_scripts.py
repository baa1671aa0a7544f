"""The scripts of the Redis store that write records; redis/records.py says what their keys are."""

from alligator.backends.redis.lua import START

# Writes a record: its key, the index of its family, the time to live in microseconds (0: for ever).
WRITE = """
local function write(key, index, value, ttl, moment)
  if ttl > 0 then
    redis.call('SET', key, value, 'PX', math.ceil(ttl / 1000))
  else
    redis.call('SET', key, value)
  end
  redis.call('ZADD', index, ttl > 0 and moment + ttl or '+inf', key)
  -- pcall: a user of the server may have no right to channels; those who wait then look now and then.
  redis.pcall('PUBLISH', key, '')
end
-- Drop members of an index that have expired: more than are written, so that it cannot grow beyond what lives.
local function tidy(index, most, moment)
  for _, key in ipairs(redis.call('ZRANGE', index, '-inf', moment, 'BYSCORE', 'LIMIT', 0, most)) do
    if redis.call('EXISTS', key) == 0 then
      redis.call('ZREM', index, key)
    end
  end
end
"""

# KEYS: the index of a family, then records of it. ARGV: ttl in microseconds (0: none), then a value of each.
SET = (
    "#!lua\n"
    + START
    + WRITE
    + """
local index, ttl, moment = KEYS[1], tonumber(ARGV[1]), now()
for i = 2, #KEYS do
  write(KEYS[i], index, ARGV[i], ttl, moment)
end
tidy(index, 2 * #KEYS, moment)
return 1
"""
)

# KEYS: the index of a family, a record of it. ARGV: ttl in microseconds (0: none), new value, and old value
# (left out: there must be none). Returns 1 if it was written. What is swapped is small, and written again and
# again: places under a limit, above all. Tasks that need one must be able to drain, too.
SWAP = (
    "#!lua flags=allow-oom\n"
    + START
    + WRITE
    + """
local index, record, ttl, moment = KEYS[1], KEYS[2], tonumber(ARGV[1]), now()
if redis.call('GET', record) ~= (ARGV[3] or false) then
  return 0
end
write(record, index, ARGV[2], ttl, moment)
tidy(index, 2, moment)
return 1
"""
)

# KEYS: the index of a family, then records of it.
DELETE = """#!lua flags=allow-oom
redis.call('DEL', unpack(KEYS, 2))
redis.call('ZREM', KEYS[1], unpack(KEYS, 2))
return 1
"""

ALL = (SET, SWAP, DELETE)
