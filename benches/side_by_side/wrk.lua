-- wrk's script: sends whole requests out of a file, in their order. Reading them must be quick, because wrk lets its first
-- thread send while the script of the next one is still starting, and counts that without the time it took.
-- Arguments behind `--`: the file, made by load.py, and the number of threads.
local threads_made = 0

function setup(thread)
  thread:set("number", threads_made)
  threads_made = threads_made + 1
end

local requests, at = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local lengths, data, start = file:read("*l"), file:read("*a"), 1
  file:close()
  for length in string.gmatch(lengths, "%d+") do
    requests[#requests + 1] = string.sub(data, start, start + length - 1)
    start = start + length
  end
  -- Each thread starts elsewhere, so that two never send about the same tenant at the same time.
  at = math.floor(#requests * number / tonumber(args[2]))
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    latency.max, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
