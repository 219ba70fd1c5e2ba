-- Which conversation a request belongs to, and which engine it goes to. The gateway keeps a conversation on one engine,
-- whose cache holds the turns before: consistent hashing with bounded load. HAProxy's own (hash-balance-factor) passes
-- a conversation on as soon as one request runs where it belongs and none elsewhere, and waits at a full engine.
--
-- A conversation is named by `prompt_cache_key`, else by its system message and its first user message, which every
-- later turn repeats. Only the beginning of a body is known (tune.bufsize), so nothing here needs its end.

local LONGEST = 8192 -- bytes of one text that are looked at
local DEEPEST = 64 -- nested arrays and objects

-- The next character that is no blank, from `at` on.
local function skip(text, at)
    return string.find(text, "[^ \t\r\n]", at)
end

-- A string that begins with its quote at `at`, as it is written: its text and the place behind it. A string without an
-- end has no place behind it.
local function read_string(text, at)
    local from = at + 1
    while true do
        local found = string.find(text, '["\\]', from)
        if not found then
            return string.sub(text, at + 1, at + LONGEST), nil
        end
        if string.sub(text, found, found) == '"' then
            return string.sub(text, at + 1, math.min(found - 1, at + LONGEST)), found + 1
        end
        from = found + 2
    end
end

-- Any value that begins at `at`: the place behind it, or nil where the text ends before.
local function skip_value(text, at, depth)
    at = at and skip(text, at)
    if not at then
        return nil
    end
    local first = string.sub(text, at, at)
    if first == '"' then
        local _, behind = read_string(text, at)
        return behind
    end
    if first ~= "{" and first ~= "[" then
        return string.find(text, "[,%]}]", at)
    end
    local open = 1
    at = at + 1
    while open > 0 do
        at = string.find(text, '["{}%[%]]', at)
        if not at or open > DEEPEST then
            return nil
        end
        local sign = string.sub(text, at, at)
        if sign == '"' then
            local _, behind = read_string(text, at)
            at = behind
            if not at then
                return nil
            end
        else
            open = open + ((sign == "{" or sign == "[") and 1 or -1)
            at = at + 1
        end
    end
    return at
end

-- Calls `found(key, at)` for each key of the object that begins at `at`, with the place of its value, until it returns
-- true. Returns whether it did.
local function each_key(text, at, found)
    at = at + 1
    while true do
        at = skip(text, at)
        if not at or string.sub(text, at, at) ~= '"' then
            return false
        end
        local key, behind = read_string(text, at)
        local colon = behind and skip(text, behind)
        local value = colon and string.sub(text, colon, colon) == ":" and skip(text, colon + 1)
        if not value then
            return false
        end
        if found(key, value) then
            return true
        end
        local comma = skip_value(text, value)
        comma = comma and skip(text, comma)
        if not comma or string.sub(text, comma, comma) ~= "," then
            return false
        end
        at = comma + 1
    end
end

-- A value as it is written, cut to LONGEST.
local function written(text, at)
    local behind = skip_value(text, at)
    return string.sub(text, at, math.min((behind or #text + 1) - 1, at + LONGEST))
end

-- The messages from the first up to the first one of the user, in the array that begins at `at`. Messages are kept as
-- they are written, since a client writes them again in the same way.
local function opening(text, at)
    local kept = {}
    at = skip(text, at + 1)
    while at and string.sub(text, at, at) == "{" do
        local role, content = "", ""
        each_key(text, at, function(key, value)
            if key == "role" then
                role = written(text, value)
            elseif key == "content" then
                content = written(text, value)
            end
            return false
        end)
        kept[#kept + 1] = role .. content
        if role == '"user"' then
            return table.concat(kept, "\n")
        end
        local comma = skip_value(text, at)
        comma = comma and skip(text, comma)
        at = comma and string.sub(text, comma, comma) == "," and skip(text, comma + 1)
    end
    return table.concat(kept, "\n")
end

local function conversation(body)
    local start = skip(body, 1)
    if not start or string.sub(body, start, start) ~= "{" then
        return ""
    end
    local named, system, turns = nil, "", nil
    each_key(body, start, function(key, value)
        local first = string.sub(body, value, value)
        if key == "prompt_cache_key" and first == '"' and string.sub(body, value, value + 1) ~= '""' then
            named = written(body, value)
            return true
        elseif key == "system" or key == "instructions" then
            system = written(body, value)
        elseif (key == "messages" or key == "input") and first == "[" then
            turns = opening(body, value)
        end
        return false
    end)
    if named then
        return named
    end
    return turns and turns ~= "" and system .. "\n" .. turns or ""
end

-- A number from 0 to 2^32 - 1, the same for the same text (FNV-1a, and the last mixing step of MurmurHash3).
local function number_of(text)
    local hash = 2166136261
    for at = 1, #text do
        hash = ((hash ~ string.byte(text, at)) * 16777619) & 0xFFFFFFFF
    end
    hash = ((hash ~ (hash >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    hash = ((hash ~ (hash >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return hash ~ (hash >> 16)
end

-- The engine for a conversation: of those that serve, the one whose number with it is the highest, so that an engine that
-- goes or comes moves only its own conversations. `engines` has name, busy and places of each. One that has much to do,
-- more than a quarter of its places and a quarter more than the mean, passes it on. "" where no engine takes it.
local function engine_for(conversation, engines)
    local busy, best, highest = 1, "", -1
    for _, engine in ipairs(engines) do
        busy = busy + engine.busy
    end
    for _, engine in ipairs(engines) do
        local most = math.min(engine.places, math.max(engine.places / 4, 1.25 * busy / #engines))
        local number = number_of(conversation .. "/" .. engine.name)
        if engine.busy < most and number > highest then
            best, highest = engine.name, number
        end
    end
    return best
end

-- The engines that serve, as the gateway sees them now.
local function serving()
    local found = {}
    for name, server in pairs(core.backends["vllm"].servers) do
        local stats = server:get_stats()
        if string.sub(stats.status, 1, 2) == "UP" then
            local busy = tonumber(stats.scur) + tonumber(stats.qcur)
            found[#found + 1] = { name = name, busy = busy, places = tonumber(stats.slim) }
        end
    end
    return found
end

if core then
    core.register_fetches("conversation", function(txn)
        return conversation(txn.sf:req_body())
    end)
    core.register_fetches("engine", function(txn)
        local named = txn:get_var("txn.key_name") .. "/" .. txn:get_var("txn.conversation")
        return engine_for(named, serving())
    end)
end

return { conversation = conversation, engine_for = engine_for }
