-- Refund: the twin of algorithm.Refund. It works under the rules that the slots were last written under.
--
-- KEYS[1]  the key's state
-- ARGV     the instant of the charge in microseconds, and a letter for each limit: its algorithm, or "-" if nothing was
--          charged to it; and the cost
--
-- The reply is 1 if anything was given back, else 0.

if not raw then
  return 0
end
local charged, kinds, cost = tonumber(first), ARGV[2], tonumber(ARGV[3])
local slots
if type(raw) == 'string' then
  slots = read(raw, {})
end
if not slots then
  return foreign()
end
local any = 0
for i = 1, math.min(#slots, #kinds) do
  local slot = slots[i]
  local r = slot.rule
  if r and r.algorithm == string.sub(kinds, i, i) then
    local st = {rule = r, time = slot.time, frac = slot.frac, used = slot.used, prev = slot.prev, log = slot.log}
    algorithms[r.algorithm].load(r, st, r, now)
    if algorithms[r.algorithm].refund(r, st, now, charged, cost) then
      slots[i], any = st, 1
    end
  end
end
if any == 1 then
  store(slots)
end
return any
