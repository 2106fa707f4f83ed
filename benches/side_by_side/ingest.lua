-- What a team would write in nginx: check the pulses, add each to a hash in Redis over a pooled connection, in one pipeline
-- a request, and answer after Redis has. Sums are doubles, there are no windows, and a repetition counts twice.
local cjson = require "cjson.safe"
local redis = require "nginx.redis"

local UNITS = {["KB"] = true, ["MB"] = true, ["GB"] = true, ["KB/sec"] = true, ["MB/sec"] = true, ["GB/sec"] = true}

local function refuse(status, why)
  ngx.status = status
  ngx.print(why)
  return ngx.exit(status)
end

local function is_id(value)
  return type(value) == "string" and #value >= 1 and #value <= 128
end

local function is_pulse(pulse)
  return type(pulse) == "table" and is_id(pulse.tenant_id) and is_id(pulse.product_sku)
    and type(pulse.used_amount) == "number" and pulse.used_amount > 0 and UNITS[pulse.use_unit]
end

local function read(body)
  if ngx.var.content_type == "application/x-ndjson" then
    local pulses = {}
    for line in string.gmatch(body, "[^\n]+") do
      pulses[#pulses + 1] = cjson.decode(line) or false
    end
    return pulses, true
  end
  local value = cjson.decode(body)
  if type(value) == "table" and value[1] then return value, true end
  return {value or false}, false
end

ngx.req.read_body()
local body = ngx.req.get_body_data()
if not body then return refuse(400, "no body") end
local pulses, list = read(body)
for _, pulse in ipairs(pulses) do
  if not is_pulse(pulse) then return refuse(422, "not a pulse") end
end

local client = redis:new()
client:set_timeout(10000)
local ok, problem = client:connect("127.0.0.1", tonumber(ngx.var.redis_port))
if not ok then return refuse(503, problem) end
if list then client:init_pipeline(#pulses) end
local answer
for _, pulse in ipairs(pulses) do
  -- The tenant comes last because LuaJIT hashes little more of a string than its ends: the other way round takes it a
  -- hundred times as long with names like tenant_1234.
  local field = pulse.use_unit .. ":" .. pulse.product_sku .. ":" .. pulse.tenant_id
  answer, problem = client:hincrbyfloat("usage", field, pulse.used_amount)
end
if list then answer, problem = client:commit_pipeline() end
if not answer then return refuse(503, problem) end
client:set_keepalive(60000, 256)
if list then
  ngx.header["Content-Type"] = "application/json"
  ngx.print('{"accepted":', #pulses, ',"duplicates":0}')
else
  ngx.status = 204
end
