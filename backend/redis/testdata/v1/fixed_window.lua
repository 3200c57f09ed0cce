-- FixedWindow: the twin of backend/fixed_window.go, which says how it works. The state is time, when the window began,
-- and used, the units charged in it.

-- fixed_window_load starts a new window if the old one is over, and carries units over from old.
local function fixed_window_load(r, st, old, now)
  local age, changed = now - st.time, false
  if age >= old.period then
    st.time, st.used = now, 0
    return false
  end
  if age < 0 then -- the clock went back: the window starts again, with the units used
    age, changed = 0, true
  end
  if old.period ~= r.period then
    age = mul_add_div(age, r.period, 0, old.period) -- below r.period
    changed = true
  end
  st.time = now - age
  if st.used > r.count then
    st.used, changed = r.count, true
  end
  return changed
end

local function fixed_window_fits(r, st, now, cost)
  return st.used + cost <= r.count
end

local function fixed_window_charge(r, st, now, cost)
  st.used = st.used + cost
end

local function fixed_window_refund(r, st, now, charged, cost)
  if st.used == 0 or charged < st.time or charged >= st.time + r.period then
    return false
  end
  st.used = math.max(0, st.used - cost)
  return true
end

algorithms.f = {
  load = fixed_window_load, fits = fixed_window_fits, charge = fixed_window_charge, refund = fixed_window_refund,
}
