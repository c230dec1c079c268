# Sidekiq: a worker process over two queues; jobs in bulk, later, with a retry; dead ones; statistics.

require "sidekiq/api"
require_relative "sidekiq_tasks"

def step(name, found, expected = true)
  abort "#{name}: expected #{expected.inspect}, found #{found.inspect}" unless found == expected
  puts "ok #{name}"
end

def wait_until(text, seconds = 60)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  until (value = yield)
    abort "not within #{seconds} s: #{text}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.05
  end
  value
end

def done
  Sidekiq.redis { |redis| redis.hgetall("done") }
end

def run
  20.times { |number| Add.perform_async(number, 100) }
  Urgent.perform_async("call")
  step("enqueued", [Sidekiq::Queue.new.size, Sidekiq::Queue.new("high").size], [20, 1])
  worker = spawn("sidekiq", "-r", "./sidekiq_tasks.rb", "-q", "high", "-q", "default", "-c", "2", out: "/dev/null")
  begin
    wait_until("twenty-one jobs are done") { done.size == 21 }
    step("done", done, (0...20).to_h { |number| ["#{number}+100", (number + 100).to_s] }.merge("call" => "urgent"))
    Sidekiq::Client.push_bulk("class" => Add, "args" => (0...10).map { |number| [number, 200] })
    wait_until("the bulk is done") { done.size == 31 }
    step("in bulk", done["9+200"], "209")
    Add.perform_in(1, 3, 4)
    step("later", wait_until("the one for later") { done["3+4"] }, "7")
    SecondTime.perform_async("again")
    step("a retry", wait_until("the retry") { done["again"] == "twice" })
    Fail.perform_async
    wait_until("a dead letter") { Sidekiq::DeadSet.new.size == 1 || Sidekiq::RetrySet.new.size == 1 }
    step("dead letters", Sidekiq::DeadSet.new.map(&:klass), ["Fail"])
    # Counts are written with a heartbeat.
    wait_until("statistics") { Sidekiq::Stats.new.failed == 2 && Sidekiq::Stats.new.processed >= 34 }
    step("statistics", Sidekiq::ProcessSet.new.map { |process| process["queues"].sort }, [%w[default high]])
    Sidekiq::Queue.new("unread").clear
    5.times { Sidekiq::Client.push("class" => Add, "args" => [1, 1], "queue" => "unread") }
    Sidekiq::Queue.new("unread").clear
    step("a queue is cleared", Sidekiq::Queue.all.map(&:name).sort, %w[default high])
    step("the queues are empty", [Sidekiq::Queue.new.size, Sidekiq::Queue.new("high").size, Sidekiq::ScheduledSet.new.size], [0, 0, 0])
  ensure
    Process.kill("TERM", worker)
    Process.wait(worker)
  end
end

$stdout.sync = true
puts "version #{Sidekiq::VERSION}"
run
