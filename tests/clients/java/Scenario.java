// SCENARIO.md with Jedis and its defaults: RedisClient, a pool of connections. Run by java as it is, without a build.
//
// Each step throws when something differs; nothing is retried.

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Pipeline;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.Response;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.resps.ScanResult;
import redis.clients.jedis.resps.Tuple;

public class Scenario {
    interface Step {
        void run() throws Exception;
    }

    private final String host;
    private final int port;
    private final boolean shards;
    private final RedisClient client;

    Scenario(String host, int port, boolean shards) {
        this.host = host;
        this.port = port;
        this.shards = shards;
        this.client = RedisClient.create(host, port);
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("Jedis " + Jedis.class.getPackage().getImplementationVersion());
        Scenario scenario = new Scenario(arguments[0], Integer.parseInt(arguments[1]), arguments[2].equals("shards"));
        scenario.step("connect", scenario::connect);
        scenario.step("strings", scenario::strings);
        scenario.step("binary", scenario::binary);
        scenario.step("many-keys", scenario::manyKeys);
        scenario.step("hash", scenario::hash);
        scenario.step("list", scenario::list);
        scenario.step("sorted-set", scenario::sortedSet);
        scenario.step("scan", scenario::scan);
        scenario.step("pipeline", scenario::pipeline);
        scenario.step("script", scenario::script);
        scenario.step("info", scenario::info);
        scenario.step("name", scenario::name);
        scenario.step("database", scenario::database);
        scenario.step("far-keys", scenario::farKeys);
        scenario.step("error", scenario::error);
        scenario.client.close();
    }

    void step(String name, Step step) throws Exception {
        step.run();
        System.out.println("ok " + name);
    }

    void connect() {
        expect("PONG", client.ping());
    }

    void strings() {
        expect("OK", client.set("smoke:s", "7"));
        expect("7", client.get("smoke:s"));
        expect(8L, client.incr("smoke:s"));
        expect(9L, client.incr("smoke:s"));
        expect(1L, client.expire("smoke:s", 100));
        long ttl = client.ttl("smoke:s");
        expect(true, ttl > 0 && ttl <= 100);
        expect(1L, client.del("smoke:s"));
        expect(null, client.get("smoke:s"));
    }

    void binary() {
        byte[] value = new byte[100_000];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) i;
        }
        value[99_998] = '\r';
        value[99_999] = '\n';
        client.set("smoke:b".getBytes(), value);
        expect(true, Arrays.equals(value, client.get("smoke:b".getBytes())));
    }

    void manyKeys() {
        List<String> pairs = new ArrayList<>();
        List<String> asked = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            pairs.addAll(List.of("smoke:m:" + i, "smoke:m:" + i));
            asked.add(0, "smoke:m:" + i);
        }
        expect("OK", client.mset(pairs.toArray(String[]::new)));
        List<String> wanted = new ArrayList<>(asked);
        wanted.add(null);
        List<String> withMissing = new ArrayList<>(asked);
        withMissing.add("smoke:m:none");
        expect(wanted, client.mget(withMissing.toArray(String[]::new)));
        expect(20L, client.del(asked.toArray(String[]::new)));
    }

    void hash() {
        expect(2L, client.hset("smoke:h", Map.of("a", "1", "b", "2")));
        expect(Map.of("a", "1", "b", "2"), client.hgetAll("smoke:h"));
    }

    void list() {
        expect(3L, client.lpush("smoke:l", "x", "y", "z"));
        expect(List.of("z", "y", "x"), client.lrange("smoke:l", 0, -1));
    }

    void sortedSet() {
        expect(3L, client.zadd("smoke:z", Map.of("one", 1.0, "two", 2.0, "half", 0.5)));
        List<Tuple> wanted = List.of(new Tuple("half", 0.5), new Tuple("one", 1.0), new Tuple("two", 2.0));
        expect(wanted, client.zrangeWithScores("smoke:z", 0, -1));
    }

    void scan() {
        List<String> pairs = new ArrayList<>();
        Set<String> keys = new TreeSet<>();
        for (int i = 0; i < 500; i++) {
            keys.add("smoke:scan:" + i);
            pairs.addAll(List.of("smoke:scan:" + i, "v"));
        }
        client.mset(pairs.toArray(String[]::new));
        Set<String> found = new TreeSet<>();
        ScanParams parameters = new ScanParams().match("smoke:scan:*").count(50);
        String cursor = ScanParams.SCAN_POINTER_START;
        do {
            ScanResult<String> page = client.scan(cursor, parameters);
            found.addAll(page.getResult());
            cursor = page.getCursor();
        } while (!cursor.equals(ScanParams.SCAN_POINTER_START));
        expect(keys, found);
    }

    void pipeline() {
        List<Response<String>> replies = new ArrayList<>();
        try (Pipeline pipeline = client.pipelined()) {
            for (int i = 0; i < 50; i++) {
                replies.add(pipeline.set("smoke:p:" + i, String.valueOf(i)));
            }
            for (int i = 0; i < 50; i++) {
                replies.add(pipeline.get("smoke:p:" + i));
            }
            pipeline.sync();
        }
        for (int i = 0; i < 50; i++) {
            expect("OK", replies.get(i).get());
            expect(String.valueOf(i), replies.get(50 + i).get());
        }
    }

    void script() {
        String text = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
        expect("by eval", client.eval(text, 1, "smoke:lua", "by eval"));
        String sha = client.scriptLoad(text);
        expect("by sha", client.evalsha(sha, 1, "smoke:lua2", "by sha"));
    }

    void info() {
        String info = client.info();
        expect(true, info.matches("(?s).*\r\nredis_version:([6-9]|\\d\\d)\\..*"));
        expect(true, info.contains("\r\nrole:master\r\n"));
    }

    void name() {
        try (Jedis connection = new Jedis(host, port)) {
            expect("OK", connection.clientSetname("smoke"));
            expect("smoke", connection.clientGetname());
        }
    }

    void database() {
        DefaultJedisClientConfig third = DefaultJedisClientConfig.builder().database(3).build();
        try (RedisClient other = RedisClient.builder().hostAndPort(host, port).clientConfig(third).build()) {
            other.set("smoke:db", "three");
            expect("three", other.get("smoke:db"));
            expect(null, client.get("smoke:db"));
        }
    }

    void farKeys() {
        client.sadd("a", "1", "2");
        client.sadd("b", "2", "3");
        Set<String> union;
        try {
            union = client.sunion("a", "b");
        } catch (JedisDataException error) {
            expect(true, shards && error.getMessage().toLowerCase().contains("slot"));
            return;
        }
        expect(Set.of("1", "2", "3"), union);
    }

    void error() {
        try {
            client.incr("smoke:l");
        } catch (JedisDataException error) {
            expect(true, error.getMessage().startsWith("WRONGTYPE"));
            connect();
            return;
        }
        throw new AssertionError("INCR of a list did not fail");
    }

    static void expect(Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) {
            throw new AssertionError("wanted " + wanted + ", found " + found);
        }
    }
}
