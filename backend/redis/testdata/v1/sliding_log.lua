-- SlidingLog: the twin of backend/sliding_log.go, which says how it works. The state is log, the charges, oldest
-- first, used, their sum, and time, that of the last.
--
-- A charge is one entry of 8 bytes for each of its decimal digits that is not 0: seven bytes of time, and one of
-- exponent * 16 + digit. So every entry has the same size, whatever its units, and is found without reading the
-- others; a charge of one unit is one entry, and no log has more than count of them.

-- sliding_log_entry returns the time and the units of entry i, counted from 0.
local function sliding_log_entry(log, i)
  local a, b, c, d, e, f, g, units = string.byte(log, i * 8 + 1, i * 8 + 8)
  local at = (((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g
  if units < 16 then
    return at, units
  end
  local exponent = math.floor(units / 16)
  units = units % 16
  for _ = 1, exponent do
    units = units * 10
  end
  return at, units
end

-- sliding_log_encode returns the entries of a charge.
local function sliding_log_encode(at, units)
  local time = ''
  units = math.min(units, 999999999999999)
  for _ = 1, 7 do
    local byte = math.fmod(at, 256)
    time = string.char(byte) .. time
    at = (at - byte) / 256
  end
  local entries, exponent = '', 0
  while units > 0 do
    local digit = math.fmod(units, 10)
    if digit > 0 then
      entries = entries .. time .. string.char(exponent * 16 + digit)
    end
    units = (units - digit) / 10
    exponent = exponent + 1
  end
  return entries
end

-- sliding_log_carry returns the log with its ages stretched from old's period to r's. Charges from the future, after
-- the clock went back, are taken for new. It also returns the time of the last.
local function sliding_log_carry(r, log, old, now)
  local carried, last = {}, now
  for i = 0, #log / 8 - 1 do
    local at, units = sliding_log_entry(log, i)
    local age = math.max(0, math.min(now - at, old.period - 1)) -- in a log of ours it is
    age = mul_add_div(age, r.period, 0, old.period) -- below r.period
    last = now - age
    carried[#carried + 1] = sliding_log_encode(last, units)
  end
  return table.concat(carried), last
end

-- sliding_log_load drops what is out of the window, and carries the rest over from old. Where charges are more than
-- the limit has room for, the oldest go: they would be free first.
local function sliding_log_load(r, st, old, now)
  local log, changed = st.log, false
  local gone, n = 0, #log / 8
  if now - st.time >= old.period then -- all, as after a pause
    gone, st.used = n, 0
  end
  while gone < n do
    local at, units = sliding_log_entry(log, gone)
    if now - at < old.period then
      break
    end
    st.used = st.used - units
    gone = gone + 1
  end
  log = string.sub(log, gone * 8 + 1)
  if #log > 0 and (st.time > now or old.period ~= r.period) then
    log, st.time = sliding_log_carry(r, log, old, now)
    changed = true
  end
  gone, n = 0, #log / 8
  local rest = ''
  while st.used > r.count and gone < n do
    local at, units = sliding_log_entry(log, gone)
    local drop = math.min(units, st.used - r.count)
    st.used = st.used - drop
    if drop < units then
      rest = sliding_log_encode(at, units - drop)
    end
    gone, changed = gone + 1, true
  end
  st.log = rest .. string.sub(log, gone * 8 + 1)
  if st.used <= 0 or st.log == '' then -- both, or the value is not ours
    st.used, st.log = 0, ''
  end
  return changed
end

local function sliding_log_fits(r, st, now, cost)
  return st.used + cost <= r.count
end

local function sliding_log_charge(r, st, now, cost)
  st.used, st.time = st.used + cost, now
  -- Not merged with a charge of the same instant: entries of one time are one charge wherever it matters.
  st.log = st.log .. sliding_log_encode(now, cost)
end

local function sliding_log_refund(r, st, now, charged, cost)
  local log, first, last = st.log, 0, #st.log / 8
  while first < last do -- the first entry that is not older than charged
    local middle = math.floor((first + last) / 2)
    if sliding_log_entry(log, middle) < charged then
      first = middle + 1
    else
      last = middle
    end
  end
  local units = 0
  last = first
  while last < #log / 8 do
    local at, more = sliding_log_entry(log, last)
    if at ~= charged then
      break
    end
    units = units + more
    last = last + 1
  end
  if units == 0 then
    return false
  end
  cost = math.min(cost, units)
  st.used = st.used - cost
  st.log = string.sub(log, 1, first * 8) .. sliding_log_encode(charged, units - cost) .. string.sub(log, last * 8 + 1)
  if #st.log > 0 then
    st.time = sliding_log_entry(st.log, #st.log / 8 - 1) -- the first of two results
  end
  return true
end

-- sliding_log_summary returns what a caller needs of a loaded log to work out an answer to cost: the oldest charges
-- as far as they have to expire for cost to fit, and the last.
local function sliding_log_summary(r, st, cost)
  local log, i, n = st.log, 0, #st.log / 8
  local over = st.used - r.count + (cost <= r.count and cost or 0)
  while over > 0 and i < n do
    local _, units = sliding_log_entry(log, i)
    over = over - units
    i = i + 1
  end
  if i < n then
    log = string.sub(log, 1, i * 8) .. string.sub(log, -8)
  end
  return log
end

algorithms.l = {
  load = sliding_log_load, fits = sliding_log_fits, charge = sliding_log_charge, refund = sliding_log_refund,
  summary = sliding_log_summary,
}
