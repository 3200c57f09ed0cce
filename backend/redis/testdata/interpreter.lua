-- Runs scripts under a bare interpreter, with a table in place of a server. Each line of the input
-- is a call: the file of the script, or "DEL" or "SET", how many keys it has, the keys, and the
-- arguments, all in hexadecimal. Each line of the output is what a call replied and every command
-- that it gave, byte by byte.

local function from_hex(text)
  return (string.gsub(text, '..', function(byte) return string.char(tonumber(byte, 16)) end))
end

local function to_hex(text)
  return (string.gsub(text, '.', function(c) return string.format('%02x', string.byte(c)) end))
end

local values, commands, clock = {}, {}, 0

-- What a server does with a command of a script. Numbers go to it as tostring writes them.
local function call(name, key, ...)
  local words = {name, key, ...}
  for i = 1, #words do
    words[i] = to_hex(tostring(words[i]))
  end
  commands[#commands + 1] = table.concat(words, ' ')
  if name == 'TIME' then
    clock = clock + 1
    return {string.format('%d', 1767225600 + clock), '7'}
  elseif name == 'GET' then
    return values[key] or false
  elseif name == 'SET' then
    values[key] = ...
  elseif name == 'DEL' then
    values[key] = nil
  elseif name == 'PTTL' then
    return -1
  end
end

redis = {call = call, pcall = call, error_reply = function(text) return {err = text} end}

-- A server lets no script read or write a global variable that is not there.
setmetatable(_G, {
  __index = function(_, name) error('global ' .. name) end,
  __newindex = function(_, name) error('global ' .. name) end,
})
rawset(_G, 'KEYS', {})
rawset(_G, 'ARGV', {})

local scripts = {}
for line in io.lines() do
  local words = {}
  for word in string.gmatch(line, '%S+') do
    words[#words + 1] = from_hex(string.sub(word, 2)) -- after a letter: it may be empty
  end
  local file, keys, key = words[1], tonumber(words[2]), words[3]
  local reply = ''
  commands = {}
  if file == 'DEL' then
    values[key] = nil
  elseif file == 'SET' then
    values[key] = words[4]
  else
    scripts[file] = scripts[file] or assert(loadfile(file))
    KEYS, ARGV = {}, {}
    for i = 3, #words do
      if i < 3 + keys then
        KEYS[i - 2] = words[i]
      else
        ARGV[i - 2 - keys] = words[i]
      end
    end
    reply = scripts[file]()
    if type(reply) == 'table' then
      reply = reply.err
    end
  end
  print(to_hex(tostring(reply)) .. ' ' .. table.concat(commands, ' | '))
end
