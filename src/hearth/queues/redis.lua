-- The operations of a queue in Redis. Each call runs one of them, whole and alone: KEYS are those of redis.py, ARGV[1]
-- names the operation. Time is the server's own, so that nodes whose clocks differ agree on who holds a lease.
--
-- A message is named "<priority>:<place>:<app>:<call>", and each call has one at most. It is in exactly one of: a set of
-- its app (by priority and place), delayed (by the time at which it shows), leased (by the time at which its lease ends). A lease is the message's name
-- and the number of the delivery: an earlier reservation is thus never taken for the current one.
--
-- Apps take turns, in rounds: an app with ready messages is in waiting, or in served once it had its turns in this round:
-- one, or as many as weights says. Between two turns it is in waiting, behind all that had none; had counts its turns.
-- It stays in served without messages until its next turn. Earlier versions name messages "<priority>:<place>:<call>",
-- and keep those that are ready in one set for each priority. Their messages take turns as an app without a name.

local places, calls, deliveries, delayed, leased = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ready_before = { KEYS[8], KEYS[7], KEYS[6] } -- of earlier versions: by priority
local channel, names = KEYS[9], KEYS[10]
local waiting, served, apps, bytes = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local weights, had = KEYS[15], KEYS[16]
local AGAIN = 2 ^ 52 -- what sorts behind each place
local PLACES = 2 ^ 51 -- of one priority
local MOST_APPS = 1000 -- of which the oldest calls are compared
local MOST_AT_ONCE = 1000 -- an even number

local function now_ms()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function app_of(name)
  return string.match(name, "^%d:%d+:([^:]*):") or ""
end

local function show(name)
  local priority, place = string.match(name, "^(%d):(%d+):")
  local app = app_of(name)
  redis.call("ZADD", apps .. app, (2 - priority) * PLACES + place, name)
  if not redis.call("ZSCORE", served, app) then
    redis.call("ZADD", waiting, "NX", place, app)
  end
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

-- Count the bytes of the messages of apps. A node of an earlier version counts nothing: what it leaves wrong ends with
-- the first moment in which the queue is empty.
local function add_bytes(sizes)
  for app, size in pairs(sizes) do
    redis.call("HINCRBY", bytes, app, size)
  end
  if redis.call("EXISTS", calls) == 0 then
    redis.call("DEL", bytes)
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

-- Some of what nodes of an earlier version stored.
local function adopt()
  if redis.call("EXISTS", unpack(ready_before)) == 0 then
    return
  end
  local left = MOST_AT_ONCE
  for _, set in ipairs(ready_before) do
    local found = left > 0 and redis.call("ZRANGE", set, 0, left - 1) or {}
    for _, name in ipairs(found) do
      redis.call("ZREM", set, name)
      show(name)
    end
    left = left - #found
  end
end

-- The first apps of a set in the order of their turns, except those that are left out.
local function first_apps(set, count, left_out)
  local found = {}
  for _, app in ipairs(redis.call("ZRANGE", set, 0, count + #left_out - 1)) do
    if not left_out.is[app] and #found < count then
      found[#found + 1] = app
    end
  end
  return found
end

-- Begin the next round of the apps that are not left out; return whether there is any.
local function next_round(left_out)
  if not first_apps(served, 1, left_out)[1] then
    return false
  end
  local stay, turns = {}, {}
  for _, app in ipairs(left_out) do
    local turn = redis.call("ZSCORE", served, app)
    if turn then
      stay[#stay + 1] = app
      turns[#turns + 1], turns[#turns + 2] = turn, app
    end
  end
  redis.call("ZUNIONSTORE", waiting, 2, waiting, served)
  redis.call("DEL", served)
  for_all("ZREM", waiting, stay)
  for_all("ZADD", served, turns)
  return true
end

-- Take up to so many messages of an app; it has had its turn.
local function take(app, count, take_one)
  local set, taken = apps .. app, {}
  for _, name in ipairs(redis.call("ZRANGE", set, 0, count - 1)) do
    if not take_one(name) then
      break
    end
    taken[#taken + 1] = name
  end
  for_all("ZREM", set, taken)
  return #taken
end

-- Count a turn of an app; return whether it has another one in this round.
local function has_more_turns(app)
  local weight = tonumber(redis.call("HGET", weights, app) or 1)
  return weight > 1 and redis.call("HINCRBY", had, app, 1) < weight
end

local operations = {}

-- push, then priority, delay in ms, app, the call's id, the call for each message. Of a call that has a message it keeps no
-- second one: a push is sent again after a lost answer, and by nodes that did not hear what came of it.
function operations.push()
  local now, sizes = now_ms(), {}
  for at = 2, #ARGV, 5 do
    local app, id = ARGV[at + 2], ARGV[at + 3]
    if redis.call("HEXISTS", names, id) == 0 then
      local name = ARGV[at] .. ":" .. redis.call("INCR", places) .. ":" .. app .. ":" .. id
      redis.call("HSET", names, id, name)
      redis.call("HSET", calls, name, ARGV[at + 4])
      sizes[app] = (sizes[app] or 0) + #ARGV[at + 4]
      local delay_ms = tonumber(ARGV[at + 1])
      if delay_ms > 0 then
        hide(name, now + delay_ms)
      else
        show(name)
      end
    end
  end
  add_bytes(sizes)
  redis.call("PUBLISH", channel, "")
  return 1
end

-- reserve, limit, visibility in ms, bytes of calls after which no more are taken, then apps that are left out: when
-- something hidden is due; then for each message the length of its lease, the delivery and the length of its call; then
-- all the leases and calls as one text: clients take long to read many texts.
function operations.reserve()
  local now, left = now_ms(), tonumber(ARGV[2])
  local until_ms, room = now + tonumber(ARGV[3]), tonumber(ARGV[4])
  local left_out = { is = {}, unpack(ARGV, 5) }
  for _, app in ipairs(left_out) do
    left_out.is[app] = true
  end
  local numbers, texts, leases, counts = {}, {}, {}, {}

  local function take_one(name)
    if left <= 0 or room <= 0 then
      return false
    end
    local delivery = (redis.call("HGET", deliveries, name) or 0) + 1
    local lease, call = name .. ":" .. delivery, redis.call("HGET", calls, name) or ""
    left, room = left - 1, room - #call
    leases[#leases + 1], leases[#leases + 2] = until_ms, name
    counts[#counts + 1], counts[#counts + 2] = name, delivery
    numbers[#numbers + 1] = #lease .. " " .. delivery .. " " .. #call
    texts[#texts + 1], texts[#texts + 2] = lease, call
    return true
  end

  adopt()
  show_due(delayed, now)
  show_due(leased, now)
  while left > 0 and room > 0 do
    local line, gone, turns, again = first_apps(waiting, left, left_out), {}, {}, {}
    local is_alone = #line == 1 and not first_apps(served, 1, left_out)[1]
    for _, app in ipairs(line) do
      if left <= 0 or room <= 0 then
        break
      end
      gone[#gone + 1] = app
      local has_taken, place = take(app, is_alone and left or 1, take_one) > 0, redis.call("INCR", places)
      if has_taken and has_more_turns(app) then
        again[#again + 1], again[#again + 2] = AGAIN + place, app
      elseif redis.call("HDEL", had, app) > 0 or has_taken then
        turns[#turns + 1], turns[#turns + 2] = place, app
      end
    end
    for_all("ZREM", waiting, gone)
    for_all("ZADD", served, turns)
    for_all("ZADD", waiting, again)
    if #line == 0 and not next_round(left_out) then
      break
    end
  end
  for_all("ZADD", leased, leases)
  for_all("HSET", deliveries, counts)
  return { due_in_ms(now), table.concat(numbers, " "), table.concat(texts) }
end

-- acknowledge, then leases: 1 or 0 for each.
function operations.acknowledge()
  local found, deleted, ids, is_deleted, sizes = {}, {}, {}, {}, {}
  for at = 2, #ARGV do
    local name = held(ARGV[at])
    if name and not is_deleted[name] then
      is_deleted[name] = true
      local app = app_of(name)
      sizes[app] = (sizes[app] or 0) - redis.call("HSTRLEN", calls, name)
      deleted[#deleted + 1] = name
      ids[#ids + 1] = string.match(name, "^%d:%d+:[^:]*:(.*)$") or string.match(name, "^%d:%d+:(.*)$")
      found[#found + 1] = 1
    else
      found[#found + 1] = 0
    end
  end
  for_all("ZREM", leased, deleted)
  for_all("HDEL", calls, deleted)
  for_all("HDEL", deliveries, deleted)
  for_all("HDEL", names, ids)
  add_bytes(sizes)
  return found
end

-- discard, the call's id: 1 or 0. What an earlier version stored without the id is not found.
function operations.discard()
  local name = redis.call("HGET", names, ARGV[2])
  if not name or redis.call("ZSCORE", leased, name) then
    return 0
  end
  local app = app_of(name)
  redis.call("ZREM", delayed, name)
  redis.call("ZREM", apps .. app, name)
  local size = redis.call("HSTRLEN", calls, name)
  redis.call("HDEL", calls, name)
  redis.call("HDEL", deliveries, name)
  redis.call("HDEL", names, ARGV[2])
  add_bytes({ [app] = -size })
  return 1
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

-- replace, lease, delay in ms, the call: 1 or 0. The deliveries go on, because they are part of leases: an earlier one
-- must not become current again.
function operations.replace()
  local name = held(ARGV[2])
  if not name then
    return 0
  end
  redis.call("HINCRBY", bytes, app_of(name), #ARGV[4] - redis.call("HSTRLEN", calls, name))
  redis.call("HSET", calls, name, ARGV[4])
  return operations.release()
end

-- The first name of each priority among the ready messages of some apps.
local function heads_of(some)
  local first, least = {}, {}
  for _, app in ipairs(some) do
    for priority = 0, 2 do
      local from = (2 - priority) * PLACES
      local found = redis.call("ZRANGEBYSCORE", apps .. app, from, "(" .. string.format("%.0f", from + PLACES), "WITHSCORES", "LIMIT", 0, 1)
      local score = tonumber(found[2])
      if score and (not least[priority] or score < least[priority]) then
        first[priority], least[priority] = found[1], score
      end
    end
  end
  return first
end

-- backlog: how many messages nobody has taken, then the first call of each priority that could be taken; of many apps,
-- those are asked whose turn comes next.
function operations.backlog()
  local found = { redis.call("HLEN", calls) - redis.call("ZCARD", leased) }
  adopt()
  for _, set in ipairs({ waiting, served }) do
    for _, name in pairs(heads_of(redis.call("ZRANGE", set, 0, MOST_APPS - 1))) do
      found[#found + 1] = redis.call("HGET", calls, name)
    end
  end
  return found
end

-- weigh, app, turns in a round.
function operations.weigh()
  if ARGV[3] == "1" then
    return redis.call("HDEL", weights, ARGV[2])
  end
  return redis.call("HSET", weights, ARGV[2], ARGV[3])
end

-- bytes, app: the bytes of its messages.
function operations.bytes()
  return math.max(0, tonumber(redis.call("HGET", bytes, ARGV[2]) or 0))
end

-- heads, cursor, about how many, bytes of each: the next cursor (0 at the end, -1 if some messages cannot be found this
-- way), then the first bytes of messages. What is there from the first to the last of these steps is in one of them.
function operations.heads()
  if redis.call("HLEN", names) < redis.call("HLEN", calls) then
    return { -1 }
  end
  local step = redis.call("HSCAN", names, ARGV[2], "COUNT", ARGV[3])
  local found = { step[1] }
  for at = 2, #step[2], 2 do
    local call = redis.call("HGET", calls, step[2][at])
    if call then
      found[#found + 1] = string.sub(call, 1, tonumber(ARGV[4]))
    end
  end
  return found
end

return operations[ARGV[1]]()
