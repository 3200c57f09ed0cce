-- Concurrency: the twin of backend/algorithm/concurrency.go, a log of the units that are held.
-- Another period leaves the instants of the charges as they are, because a Settle finds them by
-- those.

local row = sliding_log()

row.carry = function(r, st, now, old)
  if st.log ~= '' then
    row.age(r, st, now)
  end
end

return row
