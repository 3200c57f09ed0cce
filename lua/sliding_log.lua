-- SlidingLog: the twin of backend/algorithm/sliding_log.go, which says how it works. The state is
-- log, the charges, oldest first, used, their sum, and time, that of the last.
--
-- A charge is one entry of 8 bytes for each of its decimal digits that is not 0: seven bytes of
-- time, and one of exponent * 16 + digit. So every entry has the same size, whatever its units, and
-- is found without reading the others; a charge of one unit is one entry, and no log has more
-- entries than units. If it has as many, each is of one unit, and none has to be read to be
-- counted.

-- sliding_log_entry returns the time and the units of entry i, counted from 0.
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

-- sliding_log_encode returns the entries of a charge.
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

-- sliding_log_find returns the index of the first entry that is not older than at: the number of
-- entries if all are.
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

-- sliding_log_skip returns the index of the first entry from from on that has units or more before
-- it, but to at most, and how many units are before that entry. sum is how many are before from.
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

-- sliding_log_move returns the log with its charges so much later.
local function sliding_log_move(log, by)
  local entries = {}
  for i = 0, #log / 8 - 1 do
    local at, units = sliding_log_entry(log, i)
    entries[i + 1] = sliding_log_encode(math.max(0.0, at + by), units)
  end
  return table.concat(entries)
end

-- sliding_log_age drops what is out of the window.
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

-- sliding_log_carry keeps the charges, and their ages in proportion to the period.
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
  -- Not merged with a charge of the same instant: entries of one time are one charge wherever it
  -- matters.
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

-- sliding_log_shorten returns what an answer to cost needs of a log under a capacity: the oldest
-- charges as far as they have to expire for cost to fit, and the last. Before more than a capacity
-- of them is gone nothing is left, so that these are one charge, of the time of the last of them.
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
