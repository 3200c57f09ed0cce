-- Bans: the twin of backend/algorithm/ban.go, which says how they work. What stands beside the
-- slots of limits is a table of refusals, the slot of the limit of refusals, and ban, each of them
-- or not.

-- in_force returns what of beside matters now.
local function in_force(beside)
  local b = {}
  if beside.refusals and expiry(beside.refusals) > now then
    b.refusals = beside.refusals
    b.refusals.rule.row.age(b.refusals.rule, b.refusals, now)
  end
  if beside.ban and expiry(beside.ban) > now then
    b.ban = beside.ban
  end
  return b
end

-- fits_refusals reports whether the limit of refusals allows so many more.
local function fits_refusals(beside, r, refusals)
  local old = beside.refusals
  return r and (old and old.rule.row.used(old.rule, old, now) or 0.0) + refusals <= r.capacity
end

-- count_refusals counts what the limit of refusals allows.
local function count_refusals(beside, r, refusals)
  beside.refusals = take_over(r, beside.refusals, now)
  r.row.charge(r, beside.refusals, now, refusals)
end

-- refuse counts refusals, which brings a ban about if they are more than their limit allows.
local function refuse(beside, ban, refusals)
  if fits_refusals(beside, ban.refusals, refusals) then
    count_refusals(beside, ban.refusals, refusals)
    return
  end
  local length, last = ban.first, beside.ban
  if last and last.used > 0 and now < last.time + ban.longest then
    length = math.min(2 * last.used, ban.longest)
  end
  beside.refusals = nil
  beside.ban = {rule = banned, time = now + length, used = length, rest = ban.longest}
end
