-- SlidingWindow: the twin of backend/sliding_window.go, which says how it works. The state is time, when the current
-- window began, used, the units charged in it, and prev, those of the window before.

-- sliding_window_load moves on to the window that now is in, and carries units over from old.
local function sliding_window_load(r, st, old, now)
  local age, changed = now - st.time, false
  if age < 0 then -- the clock went back: the window starts again, with the units used
    age, changed = 0, true
  end
  if age >= old.period then
    age = age - old.period
    st.prev = st.used
    st.used = 0
    if age >= old.period or st.prev == 0 then
      st.time, st.prev = now, 0
      return false
    end
  end
  if old.period ~= r.period then
    age = mul_add_div(age, r.period, 0, old.period) -- below r.period
    changed = true
  end
  st.time = now - age
  if st.used > r.count then
    st.used, changed = r.count, true
  end
  -- prev * left <= (count-used) * period, or else prev is lowered to the most that the limit has room for: then that
  -- is below prev, so that the quotient fits.
  local left = r.period - age
  local weight, over = mul_add_div(st.prev, left, 0, r.period) -- at most prev
  local room = r.count - st.used
  if weight > room or weight == room and over > 0 then
    st.prev = mul_add_div(room, r.period, 0, left)
    changed = true
  end
  return changed
end

local function sliding_window_fits(r, st, now, cost)
  local room = r.count - st.used - cost
  if room < 0 then
    return false
  end
  local weight, over = mul_add_div(st.prev, st.time + r.period - now, 0, r.period) -- at most prev
  return weight < room or weight == room and over == 0
end

local function sliding_window_charge(r, st, now, cost)
  st.used = st.used + cost
end

-- sliding_window_refund credits the window that was charged, the current one or the one before.
local function sliding_window_refund(r, st, now, charged, cost)
  local window = 'used'
  if charged < st.time then
    window = 'prev'
  end
  if st[window] == 0 or charged < st.time - r.period or charged >= st.time + r.period then
    return false
  end
  st[window] = math.max(0, st[window] - cost)
  return true
end

algorithms.s = {
  load = sliding_window_load, fits = sliding_window_fits, charge = sliding_window_charge, refund = sliding_window_refund,
}
