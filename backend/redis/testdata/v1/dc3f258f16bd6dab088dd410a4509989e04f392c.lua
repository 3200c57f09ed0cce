local now, format = sec * 1000000.0 + usec, string.format
local row
local function mul_add_div(a, b, c, d)
  local p = a * b + c
  if p < 9007199254740992 then -- then it is exact: rounding never takes a number across 2^53
    local rem = math.fmod(p, d)
    return (p - rem) / d, rem
  end
  local a_rem, c_rem = math.fmod(a, d), math.fmod(c, d)
  local m, scale = 2.0, 1.0
  while d * m * 4 <= 9007199254740992 do -- d is below 2^51
    m = m * 2
  end
  while scale * m <= b do -- powers of 2: exact
    scale = scale * m
  end
  local quo, rem, rest = 0.0, 0.0, b
  while scale >= 1 do
    local low = math.fmod(rest, scale)
    p = rem * m + (rest - low) / scale * a_rem -- below d*m + m*d
    rem = math.fmod(p, d)
    quo = quo * m + (p - rem) / d
    rest, scale = low, scale / m
  end
  quo = quo + (a - a_rem) / d * b + (c - c_rem) / d
  rem = rem + c_rem
  if rem >= d then
    return quo + 1, rem - d
  end
  return quo, rem
end
local function span_of(r, units)
  return mul_add_div(units, r.period, 0, r.count)
end
local function add(r, us, num, more_us, more_num)
  us, num = us + more_us, num + more_num
  if num >= r.count then
    return us + 1, num - r.count
  end
  return us, num
end
local function sub(r, us, num, less_us, less_num)
  us, num = us - less_us, num - less_num
  if num < 0 then
    return us - 1, num + r.count
  end
  return us, num
end
local function scaled(r, age, from)
  local us = mul_add_div(age, r.period, 0, from.period)
  return us
end
local function new_rule(text)
  local algorithm, count, period, unit, burst = string.match(text, '^([fslch]?)(%d+)/(%d+)(s?)(%+?%d*)$')
  if not algorithm or #count > 15 or #period > 15 or #burst > 16 then
    return nil
  end
  local r = {
    text = text, algorithm = algorithm, row = row(algorithm), count = count + 0.0, period = period + 0.0,
    capacity = count + 0.0, full_us = false, full_num = false, -- the span of a bucket's capacity
  }
  if unit == 's' then
    r.period = r.period * 1000000
  end
  if r.count < 1 or r.period < 1000 or r.period > 31622400000000 then
    return nil
  elseif algorithm == 'c' then
    return (burst == '' or string.find(burst, '^%+[1-9]')) and r or nil
  elseif algorithm ~= '' then
    return burst == '' and r or nil
  end
  if burst ~= '' then
    burst = string.match(burst, '^%+(%d+)$')
    if not burst or burst + 0.0 < 1 then
      return nil
    end
    r.capacity = burst + 0.0
  end
  if r.capacity / r.count * r.period > 3.2e15 then -- so that the quotient below fits
    return nil
  end
  r.full_us, r.full_num = span_of(r, r.capacity)
  if r.full_us > 3153600000000000 or r.full_us == 3153600000000000 and r.full_num > 0 then
    return nil
  end
  return r
end
local function dated(r, text)
  local start, stop, next_stop = string.match(text, '^=(%-?%d+),(%-?%d+),(%-?%d+)$')
  r.start, r.stop, r.next_stop = start + 0.0, stop + 0.0, next_stop + 0.0
  return now >= r.start * 1000000 and now < r.stop * 1000000
end
local function new_rules(texts, from, n)
  local rules, keep, ban, timely = {}, false, nil, true
  for i = from, from + n - 1 do
    local text = texts[i]
    local mark = string.sub(text, 1, 1)
    if mark == '=' then
      if not dated(rules[#rules], text) then
        timely = false -- miniredis' Lua gets "timely = dated(…) and timely" wrong
      end
    elseif mark == '!' then
      local rule, shortest, longest, more, window = string.match(text, '^!([^!]+)!(%d+)!(%d+)!(%d+)!(.*)$')
      ban = {refusals = new_rule(rule), first = shortest + 0.0, longest = longest + 0.0, more = more + 0.0}
      if window ~= '' and not dated(ban.refusals, window) then
        timely = false
      end
    else
      rules[#rules + 1] = new_rule(text) or {text = text, stateless = true}
      keep = keep or not rules[#rules].stateless
    end
  end
  return rules, keep, ban, timely
end
local function token_bucket()
local function token_bucket_age(r, st, now)
end
local function token_bucket_used(r, st, now)
  local units, part = mul_add_div(st.time - now, r.count, st.rest, r.period) -- at most twice the capacity
  if part > 0 then
    return units + 1
  end
  return units
end
local function token_bucket_expiry(r, st)
  return st.rest > 0 and st.time + 1 or st.time
end
local function token_bucket_carry(r, st, now, old)
  if old.count == r.count and old.period == r.period then
    return
  end
  local units, part = mul_add_div(st.time - now, old.count, st.rest, old.period)
  local rest, over = mul_add_div(part, r.period, 0, old.period)
  if over > 0 then
    rest = rest + 1
  end
  local us, num = mul_add_div(units, r.period, rest, r.count) -- at most r's full span: it fits
  st.time, st.rest = now + us, num
end
local function token_bucket_charge(r, st, now, cost)
  local us, num = span_of(r, cost)
  st.time, st.rest = add(r, st.time, st.rest, us, num)
end
local function token_bucket_refund(r, st, now, charged, cost)
  local full = r.full_us
  if r.full_num > 0 then
    full = full + 1
  end
  if st.time + (st.rest > 0 and 1 or 0) <= now or now - charged >= full then
    return false
  end
  local time, rest = sub(r, st.time, st.rest, span_of(r, math.min(cost, 2 * r.capacity)))
  if time < now then
    time, rest = now, 0.0
  end
  st.time, st.rest = time, rest
  return true
end
return {
  age = token_bucket_age, used = token_bucket_used, expiry = token_bucket_expiry,
  carry = token_bucket_carry, charge = token_bucket_charge, refund = token_bucket_refund,
}
end
local function sliding_window()
local function sliding_window_age(r, st, now)
  if now - st.time >= r.period then
    st.time, st.rest = st.time + r.period, st.used
    st.used = 0.0
  end
end
local function sliding_window_used(r, st, now)
  local weight, part = mul_add_div(st.rest, st.time + r.period - now, 0, r.period) -- at most rest
  if part > 0 then
    weight = weight + 1
  end
  return st.used + weight
end
local function sliding_window_expiry(r, st)
  if st.used > 0 then
    return st.time + 2 * r.period
  end
  return st.time + r.period -- also of a window whose charges were all refunded
end
local function sliding_window_carry(r, st, now, old)
  st.time = now - scaled(r, now - st.time, old)
end
local function sliding_window_charge(r, st, now, cost)
  st.used = st.used + cost
end
local function sliding_window_refund(r, st, now, charged, cost)
  local window = 'used'
  if charged < st.time then
    window = 'rest'
  end
  if st[window] == 0 or charged < st.time - r.period or charged >= st.time + r.period then
    return false
  end
  st[window] = math.max(0.0, st[window] - cost)
  return true
end
return {
  age = sliding_window_age, used = sliding_window_used, expiry = sliding_window_expiry,
  carry = sliding_window_carry, charge = sliding_window_charge, refund = sliding_window_refund,
}
end
local function sliding_log()
local function sliding_log_entry(log, i)
  local a, b, c, d, e, f, g, units = string.byte(log, i * 8 + 1, i * 8 + 8)
  local at = (((((a * 256.0 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g
  local exponent = math.floor(units / 16)
  units = units % 16 + 0.0
  for _ = 1, exponent do
    units = units * 10
  end
  return at, units
end
local function sliding_log_encode(at, units)
  local low = at % 16777216 -- three bytes, and the four before them
  local high = (at - low) / 16777216
  local d, c, b = high % 256, high % 65536, high % 16777216
  local g, f = low % 256, low % 65536
  local entries, exponent = '', 0
  while units > 0 do
    local digit = units % 10
    if digit > 0 then
      entries = entries .. string.char((high - b) / 16777216, (b - c) / 65536, (c - d) / 256, d,
        (low - f) / 65536, (f - g) / 256, g, exponent * 16 + digit)
    end
    units = (units - digit) / 10
    exponent = exponent + 1
  end
  return entries
end
local function sliding_log_find(log, at)
  local first, last = 0, #log / 8
  while first < last do
    local middle = math.floor((first + last) / 2)
    if sliding_log_entry(log, middle) < at then
      first = middle + 1
    else
      last = middle
    end
  end
  return first
end
local function sliding_log_skip(st, from, sum, units, to)
  if st.used == #st.log / 8 then -- one for each entry
    from = math.max(from, math.min(units, to))
    return from, from
  end
  while sum < units and from < to do
    local _, more = sliding_log_entry(st.log, from)
    from, sum = from + 1, sum + more
  end
  return from, sum
end
local function sliding_log_move(log, by)
  local entries = {}
  for i = 0, #log / 8 - 1 do
    local at, units = sliding_log_entry(log, i)
    entries[i + 1] = sliding_log_encode(math.max(0.0, at + by), units)
  end
  return table.concat(entries)
end
local function sliding_log_age(r, st, now)
  if sliding_log_entry(st.log, 0) <= now - r.period then
    local gone, units = sliding_log_skip(st, 0, 0.0, st.used, sliding_log_find(st.log, now - r.period + 1))
    st.used, st.log = st.used - units, string.sub(st.log, gone * 8 + 1)
    if st.used <= 0 or st.log == '' then -- not a log of ours: its last charge is in the window
      st.used, st.log = 0.0, ''
    end
  end
end
local function sliding_log_used(r, st, now)
  return st.used
end
local function sliding_log_expiry(r, st)
  if st.used == 0 then
    return 0.0
  end
  return st.time + r.period
end
local function sliding_log_carry(r, st, now, old)
  if old.period == r.period then
    return
  end
  local entries = {}
  for i = 0, #st.log / 8 - 1 do
    local at, units = sliding_log_entry(st.log, i)
    local age = math.max(0.0, math.min(now - at, old.period - 1)) -- in a log of ours it is
    st.time = now - scaled(r, age, old)
    entries[#entries + 1] = sliding_log_encode(st.time, units)
  end
  st.log = table.concat(entries)
end
local function sliding_log_charge(r, st, now, cost)
  st.used, st.time = st.used + cost, now
  st.log = st.log .. sliding_log_encode(now, cost)
end
local function sliding_log_refund(r, st, now, charged, cost)
  local first = sliding_log_find(st.log, charged)
  local last = sliding_log_find(st.log, charged + 1)
  local units = 0.0
  for i = first, last - 1 do
    local _, more = sliding_log_entry(st.log, i)
    units = units + more
  end
  if units == 0 then
    return false
  end
  cost = math.min(cost, units)
  st.used = st.used - cost
  st.log = string.sub(st.log, 1, first * 8) .. sliding_log_encode(charged, units - cost) .. string.sub(st.log, last * 8 + 1)
  if #st.log > 0 then
    st.time = sliding_log_entry(st.log, #st.log / 8 - 1) -- the first of two results
  end
  return true
end
local function sliding_log_shorten(st, capacity, cost)
  local n, over = #st.log / 8, st.used - capacity
  local first, units = sliding_log_skip(st, 0, 0.0, over, n)
  local last = sliding_log_skip(st, first, units, cost <= capacity and over + cost or 0, n)
  local short = string.sub(st.log, first * 8 + 1, last * 8)
  if first > 0 then
    local at = sliding_log_entry(st.log, first - 1)
    short = sliding_log_encode(at, units) .. short
  end
  if last < n then
    short = short .. string.sub(st.log, -8)
  end
  return short
end
return {
  age = sliding_log_age, used = sliding_log_used, expiry = sliding_log_expiry,
  carry = sliding_log_carry, charge = sliding_log_charge, refund = sliding_log_refund,
  move = sliding_log_move, shorten = sliding_log_shorten,
}
end
local function fixed_window()
local function fixed_window_age(r, st, now)
  local over = math.floor((now - st.time) / r.period)
  st.time, st.used = st.time + over * r.period, st.used - over * r.capacity
end
local function fixed_window_used(r, st, now)
  return st.used
end
local function fixed_window_expiry(r, st)
  if st.used > r.capacity then
    return st.time + math.ceil(st.used / r.capacity) * r.period
  end
  return st.time + r.period -- also of a window whose charges were all refunded
end
local function fixed_window_carry(r, st, now, old)
  st.time = now - scaled(r, now - st.time, old)
end
local function fixed_window_charge(r, st, now, cost)
  st.used = st.used + cost
end
local function fixed_window_refund(r, st, now, charged, cost)
  if st.used == 0 or charged < st.time or charged >= st.time + r.period then
    return false
  end
  st.used = math.max(0.0, st.used - cost)
  return true
end
return {
  age = fixed_window_age, used = fixed_window_used, expiry = fixed_window_expiry,
  carry = fixed_window_carry, charge = fixed_window_charge, refund = fixed_window_refund,
}
end
local function calendar_window()
local function calendar_window_end(st)
  return st.time + math.fmod(st.rest, 8388608) * 1000000
end
local function calendar_window_next_end(st)
  return calendar_window_end(st) + math.floor(st.rest / 8388608) * 1000000
end
local function calendar_window_age(r, st, now)
  local stop = calendar_window_end(st)
  if stop <= now then
    st.time, st.used, st.rest = stop, st.used - r.capacity, math.floor(st.rest / 8388608)
  end
end
local function calendar_window_used(r, st, now)
  return st.used
end
local function calendar_window_expiry(r, st)
  return st.used > r.capacity and calendar_window_next_end(st) or calendar_window_end(st)
end
local function calendar_window_charge(r, st, now, cost)
  st.used = st.used + cost
  if r.start then
    st.time, st.rest = r.start * 1000000, r.stop - r.start
    if st.used > r.capacity then
      st.rest = st.rest + (r.next_stop - r.stop) * 8388608
    end
  end
end
local function calendar_window_carry(r, st, now, old)
  calendar_window_charge(r, st, now, 0.0)
end
local function calendar_window_refund(r, st, now, charged, cost)
  if st.used == 0 or charged < st.time or charged >= calendar_window_end(st) then
    return false
  end
  st.used = math.max(0.0, st.used - cost)
  return true
end
return {
  age = calendar_window_age, used = calendar_window_used, expiry = calendar_window_expiry,
  carry = calendar_window_carry, charge = calendar_window_charge, refund = calendar_window_refund,
}
end
local function concurrency()
local row = sliding_log()
row.carry = function(r, st, now, old)
  if st.log ~= '' then
    row.age(r, st, now)
  end
end
return row
end
local rows = {}
row = function(letter)
  local made = rows[letter]
  if not made then
    if letter == '' then
      made = token_bucket()
    elseif letter == 's' then
      made = sliding_window()
    elseif letter == 'l' then
      made = sliding_log()
    elseif letter == 'c' then
      made = calendar_window()
    elseif letter == 'h' then
      made = concurrency()
    else
      made = fixed_window()
    end
    rows[letter] = made
  end
  return made
end
local function expiry(slot)
  local r = slot.rule
  return r and r.row.expiry(r, slot) or 0.0
end
local function load(slots, now)
  for i = 1, #slots do
    local slot = slots[i]
    local r = slot.rule
    if r and expiry(slot) <= now then
      slot.time, slot.used, slot.rest, slot.log = now, 0.0, 0.0, ''
    elseif r then
      r.row.age(r, slot, now)
    end
  end
end
local function match(slots, rules)
  local found, claimed = {}, {}
  for pass = 1, 7 do
    local missing = false
    for i = 1, #rules do
      local r = rules[i]
      local from, to = 1, #slots
      if pass % 2 == 1 then
        from, to = i, math.min(i, to)
      end
      for j = from, (found[i] or r.stateless) and 0 or to do
        local old = slots[j].rule
        if old and not claimed[j] and (old.text == r.text or pass == 7
            or pass > 2 and old.period == r.period and (pass > 4 or old.row == r.row)) then
          found[i], claimed[j] = j, i
          break
        end
      end
      missing = missing or not found[i]
    end
    if not missing then
      break
    end
  end
  return found, claimed
end
local function fits(slots, rules, found, now, cost)
  for i = 1, #rules do
    local r, slot = rules[i], found[i] and slots[found[i]]
    if r.text == '0' or r.capacity and cost > r.capacity then
      return false
    elseif slot and slot.rule.row.used(slot.rule, slot, now) + cost > r.capacity then
      return false
    end
  end
  return true
end
local function take_over(r, slot, now)
  local old = slot and slot.rule
  if not old or old.row ~= r.row then
    local units = old and old.row.used(old, slot, now) or 0
    slot = {rule = r, time = now, used = 0.0, rest = 0.0, log = ''}
    if units > 0 then
      r.row.charge(r, slot, now, units)
    end
  elseif old.text ~= r.text then
    r.row.carry(r, slot, now, old)
    slot.rule = r
  end
  return slot
end
local function charge(slots, rules, found, now, cost)
  local charged = {}
  for i = 1, #rules do
    local r = rules[i]
    charged[i] = {}
    if not r.stateless then
      local slot = take_over(r, found[i] and slots[found[i]], now)
      r.row.charge(r, slot, now, cost)
      charged[i] = slot
    end
  end
  return charged
end
local banned = {
  text = '!', algorithm = 's', capacity = 4503599627370496.0,
  row = {expiry = function(r, slot) return slot.time + slot.rest end},
}
local function read(raw, rules)
  local sec, usec, pos = string.match(raw, '^(%d+) (%d+)()')
  if not sec or #sec > 10 or #usec > 6 then
    return nil
  end
  local slots, beside, base, back = {}, {}, sec * 1000000.0 + usec, 0.0
  if base > now then
    base, back = now, now - base
  end
  while pos <= #raw do
    local text, time, a, b, after = string.match(raw, '^ (%S+) (%-?%d+),?(%d*),?(%d*)()', pos)
    if not text then
      return nil
    end
    pos = after
    if text == '-' then
      slots[#slots + 1] = {}
    else
      local r, of = rules[#slots + 1], string.sub(text, 1, 1)
      if text == '!' then
        r = banned
      elseif of == '!' then
        r = new_rule(string.sub(text, 2))
      elseif not r or r.text ~= text then
        r = new_rule(text)
      end
      if not r or #time > 16 or #a > 16 or #b > 16 then
        return nil
      end
      local used, rest, log = 0.0, 0.0, ''
      if r.algorithm == '' then
        if a ~= '' then
          rest = a + 0.0
        end
        if rest >= r.count or time - 2 > 2 * r.full_us then
          return nil
        end
      elseif a == '' or b == '' and r.algorithm ~= 'f' or r ~= banned and time + 0 > 0 then -- of the future
        return nil
      else
        used = a + 0.0
      end
      local most = 2 * r.capacity -- a Settle may have left a debt
      if r.algorithm == 's' or r.algorithm == 'c' then
        rest = b + 0.0
        if rest > (r.algorithm == 's' and 1999999999999998 or 70368744177663) then -- the limit may have been larger
          return nil
        end
      elseif r.algorithm == 'l' or r.algorithm == 'h' then
        log = string.sub(raw, pos + 1, pos + b)
        if #log ~= b + 0.0 or #log % 8 ~= 0 or (used > 0) ~= (log ~= '') then
          return nil
        end
        pos = pos + 1 + #log
        if back < 0 then
          log = r.row.move(log, back)
        end
      end
      if used > most then
        return nil
      end
      local slot = {rule = r, time = base + time, used = used, rest = rest, log = log}
      if of ~= '!' then
        slots[#slots + 1] = slot
      elseif r == banned then
        beside.ban = slot
      else
        beside.refusals = slot
      end
    end
  end
  return slots, beside, base, back < 0
end
local function written(slot, base)
  local r = slot.rule
  local text = r.text .. format(' %.0f', slot.time - base)
  if r.algorithm == '' then
    return slot.rest > 0 and text .. format(',%.0f', slot.rest) or text
  elseif r.algorithm == 'f' then
    return text .. format(',%.0f', slot.used)
  elseif r.algorithm == 's' or r.algorithm == 'c' then
    return text .. format(',%.0f,%.0f', slot.used, slot.rest)
  end
  return text .. format(',%.0f,%.0f:', slot.used, #slot.log) .. slot.log
end
local function write(slots, beside, base)
  local text = ''
  for i = 1, #slots do
    text = text .. ' ' .. (slots[i].rule and written(slots[i], base) or '- 0')
  end
  if beside.refusals then
    text = text .. ' !' .. written(beside.refusals, base)
  end
  if beside.ban then
    text = text .. ' ' .. written(beside.ban, base)
  end
  return text
end
local function store(key, slots, beside)
  local last = math.max(beside.refusals and expiry(beside.refusals) or 0.0, beside.ban and expiry(beside.ban) or 0.0)
  for i = 1, #slots do
    last = math.max(last, expiry(slots[i]))
  end
  local value = sec .. ' ' .. usec .. write(slots, beside, now)
  if last > now then
    call('SET', key, value, 'PX', format('%.0f', math.ceil((last - now) / 1000) + extra))
  else
    call('DEL', key)
  end
  return value
end
local function foreign(key, raw, rules)
  if type(raw) == 'table' and not string.find(raw.err, 'WRONGTYPE', 1, true) then
    return raw
  end
  if rules then
    local longest = 1000.0 -- the shortest end there is
    for i = 1, #rules do
      local r = rules[i]
      longest = math.max(longest, r.full_us or r.period and 2 * r.period or 0)
    end
    local ttl, most = call('PTTL', key), math.ceil(longest / 1000)
    if ttl < 0 or ttl > most then
      call('PEXPIRE', key, format('%.0f', most))
    end
  end
  return redis.error_reply('GINLIMIT the key holds a value that is not ours')
end
local function in_force(beside)
  local b = {}
  if beside.refusals and expiry(beside.refusals) > now then
    b.refusals = beside.refusals
    b.refusals.rule.row.age(b.refusals.rule, b.refusals, now)
  end
  if beside.ban and expiry(beside.ban) > now then
    b.ban = beside.ban
  end
  return b
end
local function fits_refusals(beside, r, refusals)
  local old = beside.refusals
  return r and (old and old.rule.row.used(old.rule, old, now) or 0.0) + refusals <= r.capacity
end
local function count_refusals(beside, r, refusals)
  beside.refusals = take_over(r, beside.refusals, now)
  r.row.charge(r, beside.refusals, now, refusals)
end
local function refuse(beside, ban, refusals)
  if fits_refusals(beside, ban.refusals, refusals) then
    count_refusals(beside, ban.refusals, refusals)
    return
  end
  local length, last = ban.first, beside.ban
  if last and last.used > 0 and now < last.time + ban.longest then
    length = math.min(2 * last.used, ban.longest)
  end
  beside.refusals = nil
  beside.ban = {rule = banned, time = now + length, used = length, rest = ban.longest}
end
local function judge(key, cost, from, n, raw)
  local rules, keep, ban, timely = new_rules(ARGV, from, n)
  if not timely then
    return nil, '=' .. sec .. ' ' .. usec
  end
  local slots, beside, base, back = {}, {}, 0.0, false
  if not keep and not ban then
    raw = nil
  elseif raw == nil then
    raw = redis.pcall('GET', key)
  end
  if raw then
    if type(raw) == 'string' then
      slots, beside, base, back = read(raw, rules)
    end
    if type(raw) ~= 'string' or not slots then
      return nil, foreign(key, raw, cost > 0 and rules)
    end
  end
  load(slots, now)
  local found, claimed = match(slots, rules)
  beside = in_force(beside)
  local allowed = fits(slots, rules, found, now, math.max(cost, 1))
  local free = not beside.ban or beside.ban.time <= now
  return {
    key = key, raw = raw, cost = cost, rules = rules, keep = keep, slots = slots, beside = beside, base = base, back = back,
    found = found, claimed = claimed, fits = allowed and free, counts = not allowed and free and cost > 0 and ban, ban = ban,
  }
end
local function answer(p, wanted)
  local slots, beside, base, value = p.slots, p.beside, p.base, nil
  local charged = wanted and p.cost > 0
  if charged then
    slots = charge(slots, p.rules, p.found, now, p.cost)
    if p.ban and p.ban.more > 0 and fits_refusals(beside, p.ban.refusals, p.ban.more) then
      count_refusals(beside, p.ban.refusals, p.ban.more)
    end
  end
  if charged and not p.keep then -- an unlimited charge forgets nothing
    return sec .. ' ' .. usec .. write(slots, {}, now)
  elseif charged then
    value, base = store(p.key, slots, beside), now
  elseif p.counts then
    refuse(beside, p.ban, 1 + p.ban.more)
    local as_written = p.raw and read(p.raw, p.rules) or {} -- what has expired stays as good as forgotten
    value, base = store(p.key, as_written, beside), now
    value = nil
  elseif p.back and p.cost > 0 then -- otherwise a wait would begin anew with each refusal
    value, base = store(p.key, slots, beside), now
  end
  local short = not value
  for i = 1, #slots do
    local slot, r = slots[i], not charged and p.claimed[i] and p.rules[p.claimed[i]]
    if slot.rule and slot.rule.row.shorten then
      slot.log = slot.rule.row.shorten(slot, r and r.capacity or slot.used, r and math.max(p.cost, 1) or 0)
      short = true
    end
  end
  if short then
    local last = string.match(value or p.raw or '0 0', '^%d+ %d+')
    if p.back or p.counts then
      last = sec .. ' ' .. usec
    end
    value = last .. write(slots, beside, base)
  end
  if charged then
    return value
  end
  return '-' .. sec .. ' ' .. usec .. ' ' .. value
end
local p, err = judge(KEYS[1], first + 0.0, 2, n, raw1)
if not p then
  return err
end
return answer(p, p.fits)
