-- SlidingWindow: the twin of backend/algorithm/sliding_window.go, which says how it works. The
-- state is time, when the current window began, used, the units charged in it, and rest, those of
-- the window before.

-- sliding_window_age moves on to the window that now is in.
local function sliding_window_age(r, st, now)
  if now - st.time >= r.period then
    st.time, st.rest = st.time + r.period, st.used
    st.used = 0.0
  end
end

-- sliding_window_used returns the units in use, rounded up.
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

-- sliding_window_carry keeps the units, and the age in proportion to the period.
local function sliding_window_carry(r, st, now, old)
  st.time = now - scaled(r, now - st.time, old)
end

local function sliding_window_charge(r, st, now, cost)
  st.used = st.used + cost
end

-- sliding_window_refund credits the window that was charged, the current one or the one before.
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
