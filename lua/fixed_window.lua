-- FixedWindow: the twin of backend/algorithm/fixed_window.go, which says how it works. The state is
-- time, when the window began, and used, the units charged in it.

-- fixed_window_age moves on to the window that now is in, with what was used beyond those before. A
-- state that has not expired has that much.
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

-- fixed_window_carry keeps the units, and the age in proportion to the period.
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
