-- Take: the twin of algorithm.Take. One call decides for all limits of a key, and charges all of
-- them or none.
--
-- KEYS[1]  the key's state
-- ARGV     the cost; each limit's rule, or "u", which is unlimited, or "0", which blocks everything,
--          after the rule of a calendar its window, and for a ban a word: see new_rules; and what
--          quick.lua.tmpl asks for: the pattern of a value under these limits, and numbers
--
-- The reply is one string: see decide.lua. It is "=" and the time if a calendar is not in the
-- window that its rule has; nothing was done then.

local p, err = judge(KEYS[1], first + 0.0, 2, n, raw1)
if not p then
  return err
end
return answer(p, p.fits)
