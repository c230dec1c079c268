# What Sidekiq's worker does; it is started with `sidekiq -r ./sidekiq_tasks.rb`, and knows the server as the job does.

require "sidekiq"

url = "redis://#{ENV.fetch("APP_HOST")}:#{ENV.fetch("APP_PORT")}/0"
Sidekiq.configure_client { |config| config.redis = { url: url } }
Sidekiq.configure_server { |config| config.redis = { url: url } }

def note(name, value)
  Sidekiq.redis { |redis| redis.hset("done", name, value) }
end

class Add
  include Sidekiq::Worker

  def perform(left, right)
    note("#{left}+#{right}", left + right)
  end
end

class Urgent
  include Sidekiq::Worker
  sidekiq_options queue: "high"

  def perform(name)
    note(name, "urgent")
  end
end

class SecondTime
  include Sidekiq::Worker
  sidekiq_options retry: 2
  sidekiq_retry_in { 1 }

  def perform(name)
    first = Sidekiq.redis { |redis| redis.hsetnx("done", name, "once") }
    raise "not yet" if first

    note(name, "twice")
  end
end

class Fail
  include Sidekiq::Worker
  sidekiq_options retry: 0

  def perform
    raise "on purpose"
  end
end
