-- TokenBucket: the twin of backend/token_bucket.go, which says how it works. The state is time, the instant at which
-- the bucket will be full, and frac, what that lacks in 1/count of a microsecond. A span is two numbers: microseconds,
-- and 1/count of one.

local function token_bucket_add(r, us, num, more_us, more_num)
  us, num = us + more_us, num + more_num
  if num >= r.count then
    return us + 1, num - r.count
  end
  return us, num
end

local function token_bucket_sub(r, us, num, less_us, less_num)
  us, num = us - less_us, num - less_num
  if num < 0 then
    return us - 1, num + r.count
  end
  return us, num
end

-- token_bucket_carry returns the debt under r for the units that a debt stands for under old.
local function token_bucket_carry(r, us, num, old)
  if us == 0 and num == 0 or old.text == r.text then
    return us, num, false
  end
  if old.count == r.count and old.period == r.period then
    return us, num, true
  end
  if us > old.full_us or us == old.full_us and num > old.full_num then
    us, num = old.full_us, old.full_num
  end
  local units, part = mul_add_div(us, old.count, num, old.period) -- at most the capacity of old
  if units >= r.capacity then
    return r.full_us, r.full_num, true
  end
  local rest, over = mul_add_div(part, r.period, 0, old.period) -- at most r.period
  if over > 0 then
    rest = rest + 1
  end
  us, num = mul_add_div(units, r.period, rest, r.count) -- at most r's full span
  return us, num, true
end

-- token_bucket_load brings the arrival time up to now, clamps the debt to the capacity, and carries it over from old.
local function token_bucket_load(r, st, old, now)
  local us, num, changed = st.time - now, st.frac, false
  if us < 0 then
    us, num = 0, 0
  end
  if old ~= r then
    us, num, changed = token_bucket_carry(r, us, num, old)
  end
  if us > r.full_us or us == r.full_us and num > r.full_num then
    us, num, changed = r.full_us, r.full_num, true
  end
  st.time, st.frac = now + us, num
  return changed
end

-- token_bucket_fits reports whether cost, which is at most the capacity, can be charged now.
local function token_bucket_fits(r, st, now, cost)
  local us, num = span_of(r, cost)
  us, num = token_bucket_add(r, st.time - now, st.frac, us, num)
  return us < r.full_us or us == r.full_us and num <= r.full_num
end

local function token_bucket_charge(r, st, now, cost)
  local us, num = span_of(r, cost)
  st.time, st.frac = token_bucket_add(r, st.time, st.frac, us, num)
end

-- token_bucket_refund lowers the debt, at most to nothing. A charge that is older than the time in which the bucket
-- fills has been refilled since, and gives nothing back.
local function token_bucket_refund(r, st, now, charged, cost)
  local us, num = st.time - now, st.frac
  local full = r.full_us
  if r.full_num > 0 then
    full = full + 1
  end
  if now - charged >= full or us == 0 and num == 0 then
    return false
  end
  if cost < r.capacity then
    us, num = token_bucket_sub(r, us, num, span_of(r, cost))
  end
  if cost >= r.capacity or us < 0 then
    us, num = 0, 0
  end
  st.time, st.frac = now + us, num
  return true
end

algorithms.b = {
  load = token_bucket_load, fits = token_bucket_fits, charge = token_bucket_charge, refund = token_bucket_refund,
}
