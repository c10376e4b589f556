-- The operations of a queue in Redis. Each call runs one of them, whole and alone: KEYS are those of redis.py, ARGV[1]
-- names the operation. Time is the server's own, so that nodes whose clocks differ agree on who holds a lease.
--
-- A message is named "<priority>:<place>:<call>", and each call has one at most. It is in exactly one of: ready (by place, one set per priority),
-- delayed (by the time at which it shows), leased (by the time at which its lease ends). A lease is the message's name
-- and the number of the delivery: an earlier reservation is thus never taken for the current one.

local places, calls, deliveries, delayed, leased = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ready = { ["0"] = KEYS[6], ["1"] = KEYS[7], ["2"] = KEYS[8] }
local channel, names = KEYS[9], KEYS[10]
local MOST_AT_ONCE = 1000 -- an even number

local function now_ms()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function show(name)
  local priority, place = string.match(name, "^(%d):(%d+):")
  redis.call("ZADD", ready[priority], place, name)
end

local function hide(name, until_ms)
  redis.call("ZADD", delayed, until_ms, name)
end

-- One command for many values, in as few pieces as Lua's stack allows: each command costs more than another value does,
-- and is a record of its own in the file that Redis appends to.
local function for_all(command, key, values)
  for first = 1, #values, MOST_AT_ONCE do
    redis.call(command, key, unpack(values, first, math.min(first + MOST_AT_ONCE - 1, #values)))
  end
end

-- The message that a lease is for, if it is the current one.
local function held(lease)
  local name, delivery = string.match(lease, "^(.*):(%d+)$")
  if name and redis.call("ZSCORE", leased, name) and redis.call("HGET", deliveries, name) == delivery then
    return name
  end
end

-- What was hidden until now shows again at its old place.
local function show_due(hidden, now)
  for _, name in ipairs(redis.call("ZRANGEBYSCORE", hidden, "-inf", now, "LIMIT", 0, MOST_AT_ONCE)) do
    redis.call("ZREM", hidden, name)
    show(name)
  end
end

-- Milliseconds until something hidden is due; -1 if nothing is hidden.
local function due_in_ms(now)
  local least = -1
  for _, hidden in ipairs({ delayed, leased }) do
    local first = redis.call("ZRANGE", hidden, 0, 0, "WITHSCORES")
    if first[1] then
      local left = math.max(0, first[2] - now)
      if least < 0 or left < least then
        least = left
      end
    end
  end
  return least
end

local operations = {}

-- push, then priority, delay in ms, the call's id, the call for each message. Of a call that has a message it keeps no
-- second one: a push is sent again after a lost answer, and by nodes that did not hear what came of it.
function operations.push()
  local now = now_ms()
  for at = 2, #ARGV, 4 do
    local id = ARGV[at + 2]
    if redis.call("HEXISTS", names, id) == 0 then
      local name = ARGV[at] .. ":" .. redis.call("INCR", places) .. ":" .. id
      redis.call("HSET", names, id, name)
      redis.call("HSET", calls, name, ARGV[at + 3])
      local delay_ms = tonumber(ARGV[at + 1])
      if delay_ms > 0 then
        hide(name, now + delay_ms)
      else
        show(name)
      end
    end
  end
  redis.call("PUBLISH", channel, "")
  return 1
end

-- reserve, limit, visibility in ms: when something hidden is due; then for each message the length of its lease, the
-- delivery and the length of its call; then all the leases and calls as one text: clients take long to read many texts.
function operations.reserve()
  local now, left = now_ms(), tonumber(ARGV[2])
  local until_ms = now + tonumber(ARGV[3])
  local numbers, texts = {}, {}
  show_due(delayed, now)
  show_due(leased, now)
  for priority = 2, 0, -1 do
    local set = ready[tostring(priority)]
    local names = left > 0 and redis.call("ZRANGE", set, 0, left - 1) or {}
    local leases, counts = {}, {}
    for _, name in ipairs(names) do
      local delivery = (redis.call("HGET", deliveries, name) or 0) + 1
      local lease, call = name .. ":" .. delivery, redis.call("HGET", calls, name) or ""
      leases[#leases + 1], leases[#leases + 2] = until_ms, name
      counts[#counts + 1], counts[#counts + 2] = name, delivery
      numbers[#numbers + 1] = #lease .. " " .. delivery .. " " .. #call
      texts[#texts + 1], texts[#texts + 2] = lease, call
    end
    for_all("ZREM", set, names)
    for_all("ZADD", leased, leases)
    for_all("HSET", deliveries, counts)
    left = left - #names
  end
  return { due_in_ms(now), table.concat(numbers, " "), table.concat(texts) }
end

-- settle, then leases: 1 or 0 for each.
function operations.settle()
  local found, settled, ids, is_settled = {}, {}, {}, {}
  for at = 2, #ARGV do
    local name = held(ARGV[at])
    if name and not is_settled[name] then
      is_settled[name] = true
      settled[#settled + 1] = name
      ids[#ids + 1] = string.match(name, "^%d:%d+:(.*)$")
      found[#found + 1] = 1
    else
      found[#found + 1] = 0
    end
  end
  for_all("ZREM", leased, settled)
  for_all("HDEL", calls, settled)
  for_all("HDEL", deliveries, settled)
  for_all("HDEL", names, ids)
  return found
end

-- renew, visibility in ms, then leases: 1 or 0 for each.
function operations.renew()
  local found, until_ms = {}, now_ms() + tonumber(ARGV[2])
  for at = 3, #ARGV do
    local name = held(ARGV[at])
    if name then
      redis.call("ZADD", leased, until_ms, name)
    end
    found[#found + 1] = name and 1 or 0
  end
  return found
end

-- release, lease, delay in ms: 1 or 0.
function operations.release()
  local name, delay_ms = held(ARGV[2]), tonumber(ARGV[3])
  if not name then
    return 0
  end
  redis.call("ZREM", leased, name)
  if delay_ms > 0 then
    hide(name, now_ms() + delay_ms)
  else
    show(name)
  end
  redis.call("PUBLISH", channel, "")
  return 1
end

-- backlog: how many messages nobody has taken, then the first call of each priority that could be taken.
function operations.backlog()
  local found = { redis.call("HLEN", calls) - redis.call("ZCARD", leased) }
  for _, set in pairs(ready) do
    local first = redis.call("ZRANGE", set, 0, 0)
    if first[1] then
      found[#found + 1] = redis.call("HGET", calls, first[1])
    end
  end
  return found
end

return operations[ARGV[1]]()
