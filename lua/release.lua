-- The common case of settle.lua for a key with one limit of requests in flight, whose units come
-- back while none has expired: without its functions and tables, which would cost more than the
-- work. What it cannot do it leaves to them: nothing was written then.
--
-- In Lua 5.4 numbers are its integers here: nothing is divided that is written.
if first == '0' and #ARGV == 4 and string.byte(ARGV[2]) == 104 and ARGV[4] + 0 < 10 then -- 104 is an h
  local raw, s, u, used, n, log = redis.pcall('GET', KEYS[1]), nil, nil, nil, nil, nil
  if raw and not raw.err then
    s, u, used, n, log = string.match(raw, '^(%d+) (%d+) ' .. ARGV[2] .. ' %-?%d+,(%d+),(%d+):(.*)$')
  end
  if s and #s < 11 and #u < 7 and #n < 10 and #log == n + 0 and #log % 8 == 0 and #log > 0 then
    local at = ARGV[3] + 0
    local low = at % 16777216
    local high = (at - low) / 16777216
    local d, c, b = high % 256, high % 65536, high % 16777216
    local g, f = low % 256, low % 65536
    local entry = string.char((high - b) / 16777216, (b - c) / 65536, (c - d) / 256, d,
      (low - f) / 65536, (f - g) / 256, g, ARGV[4] + 0)
    if log == entry then
      call('DEL', KEYS[1])
      return 1
    end
    local i = string.find(log, entry, 1, true)
    while i and i % 8 ~= 1 do
      i = string.find(log, entry, i + 1, true)
    end
    local period, unit = string.match(ARGV[2], '/(%d+)(s?)$')
    if unit == 's' then
      period = period * 1000000
    end
    local now = sec * 1000000 + usec
    local o1, o2, o3, o4, o5, o6, o7 = string.byte(log, 1, 7)
    local oldest = (((((o1 * 256 + o2) * 256 + o3) * 256 + o4) * 256 + o5) * 256 + o6) * 256 + o7
    if i and oldest + period > now and s * 1000000 + u <= now then
      log = string.sub(log, 1, i - 1) .. string.sub(log, i + 8)
      o1, o2, o3, o4, o5, o6, o7 = string.byte(log, -8, -2)
      local last = (((((o1 * 256 + o2) * 256 + o3) * 256 + o4) * 256 + o5) * 256 + o6) * 256 + o7
      call('SET', KEYS[1], sec .. ' ' .. usec .. ' ' .. ARGV[2] .. ' ' .. (last - now) .. ',' .. (used - ARGV[4]) .. ',' .. #log .. ':' .. log,
        'PX', math.ceil((last + period - now) / 1000) + extra)
      return 1
    end
  end
end
