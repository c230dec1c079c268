// Jedis: a small shop. Stock in hashes, orders in transactions, a feed by pub/sub, jobs by blocking pops and a stream.
//
// Each step throws when something differs; nothing is retried but a watched transaction that came too late.

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import redis.clients.jedis.AbstractTransaction;
import redis.clients.jedis.JedisPubSub;
import redis.clients.jedis.Pipeline;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.Response;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.params.XReadGroupParams;
import redis.clients.jedis.resps.ScanResult;
import redis.clients.jedis.resps.StreamEntry;

public class JedisShop {
    static final int ITEMS = 20;
    static final String TAKE =
            "local left = redis.call('HINCRBY', KEYS[1], 'stock', -ARGV[1]) "
                    + "if left < 0 then redis.call('HINCRBY', KEYS[1], 'stock', ARGV[1]) return -1 end return left";

    private final RedisClient client;
    private final ExecutorService threads = Executors.newCachedThreadPool();

    JedisShop(RedisClient client) {
        this.client = client;
    }

    public static void main(String[] arguments) throws Exception {
        Properties ofJedis = new Properties();
        ofJedis.load(RedisClient.class.getResourceAsStream("pom.properties"));
        System.out.println("version " + ofJedis.getProperty("version"));
        String host = System.getenv("APP_HOST");
        int port = Integer.parseInt(System.getenv("APP_PORT"));
        try (RedisClient client = RedisClient.create(host, port)) {
            JedisShop shop = new JedisShop(client);
            shop.stock();
            shop.orders();
            shop.prices();
            shop.feed();
            shop.jobs();
            shop.threads.shutdown();
        }
    }

    static void step(String name, Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(name + ": expected " + expected + ", found " + found);
        }
        System.out.println("ok " + name);
    }

    static <T> List<T> all(ExecutorService threads, int times, Callable<T> call) throws Exception {
        List<T> found = new ArrayList<>();
        for (Future<T> answer : threads.invokeAll(java.util.Collections.nCopies(times, call))) {
            found.add(answer.get());
        }
        return found;
    }

    void stock() throws Exception {
        List<Response<Long>> replies = new ArrayList<>();
        try (Pipeline pipeline = client.pipelined()) {
            for (int item = 0; item < ITEMS; item++) {
                replies.add(pipeline.hset("item:" + item, Map.of("stock", "10", "name", "item " + item)));
            }
            pipeline.sync();
        }
        step("a pipeline", replies.stream().mapToLong(Response::get).sum(), 2L * ITEMS);
        List<Long> taken = all(threads, 15, () -> (Long) client.eval(TAKE, 1, "item:1", "1"));
        taken.sort(null);
        step("a script, fifteen times", taken, Arrays.asList(-1L, -1L, -1L, -1L, -1L, 0L, 1L, 2L, 3L, 4L, 5L, 6L, 7L, 8L, 9L));
    }

    void orders() throws Exception {
        try (AbstractTransaction order = client.multi()) {
            order.hset("{order:1}", "item", "3");
            order.rpush("{order:1}:log", "made");
            order.expire("{order:1}", 60);
            step("a transaction", order.exec(), List.of(1L, 1L, 1L));
        }
        // Each holds a connection of the pool and wants another; the pool has eight.
        ExecutorService four = Executors.newFixedThreadPool(4);
        all(four, 10, () -> {
            while (true) {
                try (AbstractTransaction change = client.transaction(false)) {
                    change.watch("counter");
                    String count = client.get("counter");
                    change.multi();
                    change.set("counter", String.valueOf(count == null ? 1 : Integer.parseInt(count) + 1));
                    if (change.exec() != null) {
                        return true;
                    }
                }
            }
        });
        four.shutdown();
        step("a watched transaction", client.get("counter"), "10");
    }

    void prices() {
        List<String> pairs = new ArrayList<>();
        List<String> keys = new ArrayList<>();
        List<String> values = new ArrayList<>();
        for (int item = 0; item < ITEMS; item++) {
            keys.add("price:" + item);
            values.add("of " + item);
            pairs.addAll(List.of("price:" + item, "of " + item));
        }
        client.mset(pairs.toArray(String[]::new));
        step("many keys", client.mget(keys.toArray(String[]::new)), values);
        Set<String> seen = new HashSet<>();
        String cursor = ScanParams.SCAN_POINTER_START;
        do {
            ScanResult<String> page = client.scan(cursor, new ScanParams().match("item:*").count(5));
            seen.addAll(page.getResult());
            cursor = page.getCursor();
        } while (!cursor.equals(ScanParams.SCAN_POINTER_START));
        step("a scan", seen.size(), ITEMS);
    }

    void feed() throws Exception {
        Set<String> heard = new ConcurrentSkipListSet<>();
        CountDownLatch subscribed = new CountDownLatch(2);
        CountDownLatch messages = new CountDownLatch(2);
        JedisPubSub reader = new JedisPubSub() {
            @Override
            public void onSubscribe(String channel, int count) {
                subscribed.countDown();
            }

            @Override
            public void onMessage(String channel, String text) {
                heard.add(channel + " " + text);
                messages.countDown();
            }
        };
        JedisPubSub patterns = new JedisPubSub() {
            @Override
            public void onPSubscribe(String pattern, int count) {
                subscribed.countDown();
            }

            @Override
            public void onPMessage(String pattern, String channel, String text) {
                heard.add(channel + " " + text);
                messages.countDown();
            }
        };
        Future<?> first = threads.submit(() -> client.subscribe(reader, "news"));
        Future<?> second = threads.submit(() -> client.psubscribe(patterns, "local.*"));
        if (!subscribed.await(20, TimeUnit.SECONDS)) {
            throw new AssertionError("not subscribed");
        }
        step("published", client.publish("news", "one"), 1L);
        client.publish("local.here", "two");
        messages.await(20, TimeUnit.SECONDS);
        step("heard", new TreeSet<>(heard), new TreeSet<>(Set.of("local.here two", "news one")));
        reader.unsubscribe();
        patterns.punsubscribe();
        first.get(20, TimeUnit.SECONDS);
        second.get(20, TimeUnit.SECONDS);
    }

    void jobs() throws Exception {
        Future<List<String>> popped = threads.submit(() -> client.blpop(20, "jobs:high", "jobs:low"));
        client.rpush("jobs:low", "sweep");
        step("a blocking pop of two lists", popped.get(), List.of("jobs:low", "sweep"));
        client.xgroupCreate("events", "readers", StreamEntryID.XGROUP_LAST_ENTRY, true);
        StreamEntryID id = client.xadd("events", StreamEntryID.NEW_ENTRY, Map.of("kind", "made"));
        Map<String, StreamEntryID> from = new HashMap<>();
        from.put("events", StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY);
        List<Map.Entry<String, List<StreamEntry>>> read =
                client.xreadGroup("readers", "one", XReadGroupParams.xReadGroupParams().count(10).block(20000), from);
        StreamEntry entry = read.get(0).getValue().get(0);
        step("a stream", List.of(entry.getID(), entry.getFields()), List.of(id, Map.of("kind", "made")));
        step("acknowledged", client.xack("events", "readers", id), 1L);
    }
}
