// Lettuce: the shop of JedisShop.java in its own words, over one connection that many threads share, and RESP3.
//
// Each step throws when something differs; nothing is retried but a watched transaction that came too late.

import io.lettuce.core.Consumer;
import io.lettuce.core.KeyScanCursor;
import io.lettuce.core.KeyValue;
import io.lettuce.core.LettuceVersion;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisFuture;
import io.lettuce.core.RedisURI;
import io.lettuce.core.ScanArgs;
import io.lettuce.core.ScanCursor;
import io.lettuce.core.ScriptOutputType;
import io.lettuce.core.StreamMessage;
import io.lettuce.core.TransactionResult;
import io.lettuce.core.XGroupCreateArgs;
import io.lettuce.core.XReadArgs;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.api.async.RedisAsyncCommands;
import io.lettuce.core.api.sync.RedisCommands;
import io.lettuce.core.pubsub.RedisPubSubAdapter;
import io.lettuce.core.pubsub.StatefulRedisPubSubConnection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

public class LettuceShop {
    static final int ITEMS = 20;
    static final String TAKE =
            "local left = redis.call('HINCRBY', KEYS[1], 'stock', -ARGV[1]) "
                    + "if left < 0 then redis.call('HINCRBY', KEYS[1], 'stock', ARGV[1]) return -1 end return left";

    private final RedisClient client;
    private final StatefulRedisConnection<String, String> connection;
    private final RedisCommands<String, String> commands;

    LettuceShop(RedisClient client) {
        this.client = client;
        this.connection = client.connect();
        this.commands = connection.sync();
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("version " + LettuceVersion.getVersion().split("/")[0]);
        String host = System.getenv("APP_HOST");
        int port = Integer.parseInt(System.getenv("APP_PORT"));
        RedisClient client = RedisClient.create(RedisURI.create(host, port));
        LettuceShop shop = new LettuceShop(client);
        shop.stock();
        shop.orders();
        shop.prices();
        shop.feed();
        shop.jobs();
        shop.connection.close();
        client.shutdown(Duration.ZERO, Duration.ofSeconds(2));
    }

    static void step(String name, Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(name + ": expected " + expected + ", found " + found);
        }
        System.out.println("ok " + name);
    }

    static <T> T got(Future<T> answer) throws Exception {
        return answer.get(20, TimeUnit.SECONDS);
    }

    void stock() throws Exception {
        RedisAsyncCommands<String, String> async = connection.async();
        List<RedisFuture<Long>> replies = new ArrayList<>();
        for (int item = 0; item < ITEMS; item++) {
            replies.add(async.hset("item:" + item, Map.of("stock", "10", "name", "item " + item)));
        }
        long made = 0;
        for (RedisFuture<Long> reply : replies) {
            made += got(reply);
        }
        step("a pipeline", made, 2L * ITEMS);
        List<RedisFuture<Long>> answers = new ArrayList<>();
        for (int time = 0; time < 15; time++) {
            answers.add(async.eval(TAKE, ScriptOutputType.INTEGER, new String[] {"item:1"}, "1"));
        }
        List<Long> taken = new ArrayList<>();
        for (RedisFuture<Long> answer : answers) {
            taken.add(got(answer));
        }
        taken.sort(null);
        step("a script, fifteen times", taken, Arrays.asList(-1L, -1L, -1L, -1L, -1L, 0L, 1L, 2L, 3L, 4L, 5L, 6L, 7L, 8L, 9L));
    }

    void orders() throws Exception {
        commands.multi();
        commands.hset("{order:1}", "item", "3");
        commands.rpush("{order:1}:log", "made");
        commands.expire("{order:1}", 60);
        TransactionResult order = commands.exec();
        step("a transaction", order.stream().toList(), List.of(true, 1L, true));
        ExecutorService threads = Executors.newCachedThreadPool();
        Callable<Boolean> add = () -> {
            try (StatefulRedisConnection<String, String> own = client.connect()) {
                RedisCommands<String, String> mine = own.sync();
                while (true) {
                    mine.watch("counter");
                    String count = mine.get("counter");
                    mine.multi();
                    mine.set("counter", String.valueOf(count == null ? 1 : Integer.parseInt(count) + 1));
                    if (!mine.exec().wasDiscarded()) {
                        return true;
                    }
                }
            }
        };
        for (Future<Boolean> done : threads.invokeAll(Collections.nCopies(10, add))) {
            got(done);
        }
        threads.shutdown();
        step("a watched transaction", commands.get("counter"), "10");
    }

    void prices() {
        Map<String, String> pairs = new LinkedHashMap<>();
        for (int item = 0; item < ITEMS; item++) {
            pairs.put("price:" + item, "of " + item);
        }
        commands.mset(pairs);
        List<KeyValue<String, String>> found = commands.mget(pairs.keySet().toArray(String[]::new));
        step("many keys", found.stream().map(KeyValue::getValue).toList(), new ArrayList<>(pairs.values()));
        Set<String> seen = new HashSet<>();
        KeyScanCursor<String> page = commands.scan(ScanCursor.INITIAL, ScanArgs.Builder.matches("item:*").limit(5));
        seen.addAll(page.getKeys());
        while (!page.isFinished()) {
            page = commands.scan(page, ScanArgs.Builder.matches("item:*").limit(5));
            seen.addAll(page.getKeys());
        }
        step("a scan", seen.size(), ITEMS);
    }

    void feed() throws Exception {
        Set<String> heard = new ConcurrentSkipListSet<>();
        CountDownLatch messages = new CountDownLatch(2);
        try (StatefulRedisPubSubConnection<String, String> reader = client.connectPubSub()) {
            reader.addListener(new RedisPubSubAdapter<String, String>() {
                @Override
                public void message(String channel, String text) {
                    heard.add(channel + " " + text);
                    messages.countDown();
                }

                @Override
                public void message(String pattern, String channel, String text) {
                    message(channel, text);
                }
            });
            reader.sync().subscribe("news");
            reader.sync().psubscribe("local.*");
            step("published", commands.publish("news", "one"), 1L);
            commands.publish("local.here", "two");
            messages.await(20, TimeUnit.SECONDS);
            step("heard", new TreeSet<>(heard), new TreeSet<>(Set.of("local.here two", "news one")));
        }
    }

    void jobs() throws Exception {
        try (StatefulRedisConnection<String, String> waiting = client.connect()) {
            RedisFuture<KeyValue<String, String>> popped = waiting.async().blpop(20, "jobs:high", "jobs:low");
            commands.rpush("jobs:low", "sweep");
            step("a blocking pop of two lists", got(popped), KeyValue.just("jobs:low", "sweep"));
            XReadArgs.StreamOffset<String> last = XReadArgs.StreamOffset.latest("events");
            commands.xgroupCreate(last, "readers", XGroupCreateArgs.Builder.mkstream());
            RedisFuture<List<StreamMessage<String, String>>> read = waiting.async().xreadgroup(
                    Consumer.from("readers", "one"),
                    XReadArgs.Builder.block(20000).count(10),
                    XReadArgs.StreamOffset.lastConsumed("events"));
            String id = commands.xadd("events", Map.of("kind", "made"));
            StreamMessage<String, String> entry = got(read).get(0);
            step("a stream", List.of(entry.getId(), entry.getBody()), List.of(id, Map.of("kind", "made")));
            step("acknowledged", commands.xack("events", "readers", id), 1L);
        }
    }
}
