-- The key's value, and how many limits there are.
local raw, n = redis.pcall('GET', KEYS[1]), #ARGV - 1
