-- Take: the twin of algorithm.Take. One call decides for all limits of a key, and charges all of
-- them or none.
--
-- KEYS[1]  the key's state
-- ARGV     the cost; each limit's rule, or "u", which is unlimited, or "0", which blocks everything;
--          and what quick.lua.tmpl asks for: the pattern of a value under these limits, and numbers
--
-- The reply is one string: see decide.lua.

local p, err = judge(KEYS[1], first + 0.0, 2, n, raw1)
if not p then
  return err
end
return answer(p, p.fits)
