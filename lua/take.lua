-- Take: the twin of algorithm.Take. One call decides for all limits of a key, and charges all of them or none.
--
-- KEYS[1]  the key's state
-- ARGV     the cost; each limit's rule, or "u", which is unlimited, or "0", which blocks everything; and what quick.lua.tmpl
--          asks for: the pattern of a value under these limits, and numbers
--
-- The reply is one string. If the cost was charged, it is the value that the key has now. Else it is "-", the time,
-- and a value: the instant of the last write, "0 0" if there was none, and the states as they are under these limits
-- now. In both, a log is shortened to what an answer needs.

local cost = tonumber(first)
local asked = math.max(cost, 1) -- a look asks for one unit
local rules, longest = {}, 1000
for i = 1, n do
  local text = ARGV[i + 1]
  if text == 'u' or text == '0' then
    rules[i] = {text = text, stateless = true}
  else
    rules[i] = new_rule(text)
    longest = math.max(longest, rules[i].full_us or 2 * rules[i].period)
  end
end

local slots, base = {}, 0
if raw then
  if type(raw) == 'string' then
    slots, base = read(raw, rules)
  end
  if type(raw) ~= 'string' or not slots then
    return foreign(cost > 0 and math.ceil(longest / 1000))
  end
end

-- Each limit's state as it is now, and whether all fit.
local states, changed, any, fits = {}, {}, false, true
for i = 1, n do
  local r, old = rules[i], slots[i] and slots[i].rule
  if r.stateless then
    states[i] = {}
    fits = fits and r.text == 'u'
  else
    local st = {rule = r, time = now, frac = 0, used = 0, prev = 0, log = ''}
    states[i] = st
    local algorithm = algorithms[r.algorithm]
    if old and old.algorithm == r.algorithm then
      local slot = slots[i]
      st.time, st.frac, st.used, st.prev, st.log = slot.time, slot.frac, slot.used, slot.prev, slot.log
      changed[i] = algorithm.load(r, st, old, now)
      any = any or changed[i]
    end
    fits = fits and asked <= r.capacity and algorithm.fits(r, st, now, asked)
  end
end

local charge = fits and cost > 0
local value
if charge or any and cost > 0 then -- a limit that changed is written also if the cost is refused
  for i = 1, n do
    local st = states[i]
    slots[i] = slots[i] or {}
    if st.rule and charge then
      algorithms[st.rule.algorithm].charge(st.rule, st, now, cost)
    end
    if st.rule and (charge or changed[i]) then
      slots[i] = st
    end
  end
  value = store(slots)
  base = now
end

if charge and not algorithms.l then
  return value
end
for i = 1, n do
  if rules[i].algorithm == 'l' then
    states[i].log = algorithms.l.summary(rules[i], states[i], charge and 0 or asked)
  end
end
local reply = ''
for i = 1, n do
  reply = reply .. write(states[i], base)
end
if value then
  reply = sec .. ' ' .. usec .. reply
elseif raw then
  reply = string.match(raw, '^%d+ %d+') .. reply
else
  reply = '0 0' .. reply
end
if charge then
  return reply
end
return '-' .. sec .. ' ' .. usec .. ' ' .. reply
