-- CalendarWindow: the twin of backend/algorithm/calendar_window.go, which says how it works. The
-- state is time, when the window began, used, the units charged in it, and rest, how many seconds
-- long it is and, times 2^23, the next one while more than the capacity is used.
--
-- A rule of a call has the window that the clock of its caller says it is, in seconds since 1970:
-- from start, before stop, and until next_stop the one after it. One that a slot names has none.

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

-- calendar_window_charge writes the window that now is in. A rule that a slot names has none: the
-- slot stays in its own.
local function calendar_window_charge(r, st, now, cost)
  st.used = st.used + cost
  if r.start then
    st.time, st.rest = r.start * 1000000, r.stop - r.start
    if st.used > r.capacity then
      st.rest = st.rest + (r.next_stop - r.stop) * 8388608
    end
  end
end

-- calendar_window_carry moves what was used into the window of another calendar.
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
