-- Take: the twin of algorithm.Take. One call decides for all limits of a key, and charges all of them
-- or none.
--
-- KEYS[1]  the key's state
-- ARGV     the cost; each limit's rule, or "u", which is unlimited, or "0", which blocks everything;
--          and what quick.lua.tmpl asks for: the pattern of a value under these limits, and numbers
--
-- The reply is one string: see decide.lua.

local rules, keep = new_rules(ARGV, 2, n)
if keep and raw == nil then
  raw = redis.pcall('GET', KEYS[1])
end
local p, err = judge(KEYS[1], keep and raw, first + 0.0, rules, keep)
if not p then
  return err
end
return answer(p, p.fits)
