-- TakeAll: Take for several keys. Each is charged, or none.
--
-- KEYS  the keys' states
-- ARGV  1, or 0 to charge none whatever fits; and for each key the cost, the number of its words, and
--       these, as for take.lua; and what quick.lua.tmpl asks for, as there
--
-- The reply is one string: that of take.lua for each key, with a line feed between them. A log may
-- have one too, but its length stands before it.

local parts, all, at = {}, first == '1', 2
for i = 1, #KEYS do
  local n = ARGV[at + 1] + 0
  local p, err = judge(KEYS[i], ARGV[at] + 0.0, at + 2, n, seen[i])
  if not p then
    return err
  end
  parts[i], all, at = p, all and p.fits, at + 2 + n
end
local replies = {}
for i = 1, #parts do
  replies[i] = answer(parts[i], all)
end
return table.concat(replies, '\n')
