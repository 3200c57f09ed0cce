-- TokenBucket: the twin of backend/algorithm/token_bucket.go, which says how it works. The state is
-- time, the instant at which the bucket will be full, and rest, what that lacks in 1/count of a
-- microsecond.

-- token_bucket_age takes nothing off: the debt is what lies between now and time.
local function token_bucket_age(r, st, now)
end

-- token_bucket_used returns the units in use, rounded up.
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

-- token_bucket_carry keeps the units that are in use, rounded up to 1/period of one.
local function token_bucket_carry(r, st, now, old)
  if old.count == r.count and old.period == r.period then
    return
  end
  -- At most the capacity of r, because what fits is all that is carried, and a part below
  -- old.period, so that rest is at most r.period.
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

-- token_bucket_refund lowers the debt, if there is any, at most to nothing. A charge that is older
-- than the time in which the bucket fills has been refilled since, and gives nothing back.
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
