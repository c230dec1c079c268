// SCENARIO.md with go-redis and its defaults: a pool of connections, HELLO 3, CLIENT SETINFO.
//
// Each step returns an error that says what differed. Written for the language of Go 1.18, which Debian 12 can build.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

type steps struct {
	ctx     context.Context
	options redis.Options
	client  *redis.Client
	target  string
}

func main() {
	if len(os.Args) != 4 {
		fmt.Println("usage: clients HOST PORT TARGET")
		os.Exit(2)
	}
	options := redis.Options{Addr: os.Args[1] + ":" + os.Args[2]}
	own := options
	run := steps{context.Background(), options, redis.NewClient(&own), os.Args[3]}
	fmt.Println("go-redis", redis.Version())
	for _, step := range run.all() {
		if err := step.run(); err != nil {
			fmt.Printf("%s: %v\n", step.name, err)
			os.Exit(1)
		}
		fmt.Println("ok", step.name)
	}
	if err := run.client.Close(); err != nil {
		fmt.Println("close:", err)
		os.Exit(1)
	}
}

type step struct {
	name string
	run  func() error
}

func (s *steps) all() []step {
	return []step{
		{"connect", s.connect},
		{"strings", s.strings},
		{"binary", s.binary},
		{"many-keys", s.manyKeys},
		{"hash", s.hash},
		{"list", s.list},
		{"sorted-set", s.sortedSet},
		{"scan", s.scan},
		{"pipeline", s.pipeline},
		{"script", s.script},
		{"info", s.info},
		{"name", s.name},
		{"database", s.database},
		{"far-keys", s.farKeys},
		{"error", s.error},
	}
}

func (s *steps) connect() error {
	return expect(s.client.Ping(s.ctx).Result())("PONG")
}

func (s *steps) strings() error {
	ttl := func() (bool, error) {
		left, err := s.client.TTL(s.ctx, "smoke:s").Result()
		return left > 0 && left <= 100*time.Second, err
	}
	return first(
		func() error { return expect(s.client.Set(s.ctx, "smoke:s", "7", 0).Result())("OK") },
		func() error { return expect(s.client.Get(s.ctx, "smoke:s").Result())("7") },
		func() error { return expect(s.client.Incr(s.ctx, "smoke:s").Result())(int64(8)) },
		func() error { return expect(s.client.Incr(s.ctx, "smoke:s").Result())(int64(9)) },
		func() error { return expect(s.client.Expire(s.ctx, "smoke:s", 100*time.Second).Result())(true) },
		func() error { return expect(ttl())(true) },
		func() error { return expect(s.client.Del(s.ctx, "smoke:s").Result())(int64(1)) },
		func() error { return expect(s.client.Get(s.ctx, "smoke:s").Err(), nil)(redis.Nil) },
	)
}

func (s *steps) binary() error {
	value := make([]byte, 99998)
	for i := range value {
		value[i] = byte(i)
	}
	value = append(value, '\r', '\n')
	if err := s.client.Set(s.ctx, "smoke:b", value, 0).Err(); err != nil {
		return err
	}
	found, err := s.client.Get(s.ctx, "smoke:b").Bytes()
	return expect(bytes.Equal(found, value), err)(true)
}

func (s *steps) manyKeys() error {
	var keys, pairs []string
	var asked []string
	var wanted []interface{}
	for i := 0; i < 20; i++ {
		key := "smoke:m:" + strconv.Itoa(i)
		keys = append(keys, key)
		pairs = append(pairs, key, key)
		asked = append([]string{key}, asked...)
		wanted = append([]interface{}{key}, wanted...)
	}
	return first(
		func() error { return expect(s.client.MSet(s.ctx, pairs).Result())("OK") },
		func() error {
			return expect(s.client.MGet(s.ctx, append(asked, "smoke:m:none")...).Result())(append(wanted, nil))
		},
		func() error { return expect(s.client.Del(s.ctx, keys...).Result())(int64(20)) },
	)
}

func (s *steps) hash() error {
	return first(
		func() error { return expect(s.client.HSet(s.ctx, "smoke:h", "a", "1", "b", "2").Result())(int64(2)) },
		func() error {
			return expect(s.client.HGetAll(s.ctx, "smoke:h").Result())(map[string]string{"a": "1", "b": "2"})
		},
	)
}

func (s *steps) list() error {
	return first(
		func() error { return expect(s.client.LPush(s.ctx, "smoke:l", "x", "y", "z").Result())(int64(3)) },
		func() error {
			return expect(s.client.LRange(s.ctx, "smoke:l", 0, -1).Result())([]string{"z", "y", "x"})
		},
	)
}

func (s *steps) sortedSet() error {
	one, two, half := redis.Z{Score: 1, Member: "one"}, redis.Z{Score: 2, Member: "two"}, redis.Z{Score: 0.5, Member: "half"}
	return first(
		func() error { return expect(s.client.ZAdd(s.ctx, "smoke:z", one, two, half).Result())(int64(3)) },
		func() error {
			return expect(s.client.ZRangeWithScores(s.ctx, "smoke:z", 0, -1).Result())([]redis.Z{half, one, two})
		},
	)
}

func (s *steps) scan() error {
	var pairs, keys []string
	for i := 0; i < 500; i++ {
		keys = append(keys, "smoke:scan:"+strconv.Itoa(i))
		pairs = append(pairs, keys[i], "v")
	}
	if err := s.client.MSet(s.ctx, pairs).Err(); err != nil {
		return err
	}
	seen := map[string]bool{}
	cursor := uint64(0)
	for {
		page, next, err := s.client.Scan(s.ctx, cursor, "smoke:scan:*", 50).Result()
		if err != nil {
			return err
		}
		for _, key := range page {
			seen[key] = true
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	var found []string
	for key := range seen {
		found = append(found, key)
	}
	sort.Strings(found)
	sort.Strings(keys)
	return expect(found, nil)(keys)
}

func (s *steps) pipeline() error {
	replies, err := s.client.Pipelined(s.ctx, func(pipe redis.Pipeliner) error {
		for i := 0; i < 50; i++ {
			pipe.Set(s.ctx, "smoke:p:"+strconv.Itoa(i), i, 0)
		}
		for i := 0; i < 50; i++ {
			pipe.Get(s.ctx, "smoke:p:"+strconv.Itoa(i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := 0; i < 50; i++ {
		err := first(
			func() error { return expect(replies[i].(*redis.StatusCmd).Result())("OK") },
			func() error { return expect(replies[50+i].(*redis.StringCmd).Result())(strconv.Itoa(i)) },
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *steps) script() error {
	text := "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
	if err := expect(s.client.Eval(s.ctx, text, []string{"smoke:lua"}, "by eval").Result())("by eval"); err != nil {
		return err
	}
	sha, err := s.client.ScriptLoad(s.ctx, text).Result()
	if err != nil {
		return err
	}
	return expect(s.client.EvalSha(s.ctx, sha, []string{"smoke:lua2"}, "by sha").Result())("by sha")
}

func (s *steps) info() error {
	info, err := s.client.Info(s.ctx).Result()
	if err != nil {
		return err
	}
	version := regexp.MustCompile(`\r\nredis_version:([6-9]|\d\d)\.`)
	return expect(version.MatchString(info) && strings.Contains(info, "\r\nrole:master\r\n"), nil)(true)
}

func (s *steps) name() error {
	connection := s.client.Conn()
	err := first(
		func() error { return expect(connection.ClientSetName(s.ctx, "smoke").Result())(true) },
		func() error { return expect(connection.ClientGetName(s.ctx).Result())("smoke") },
	)
	if closed := connection.Close(); err == nil {
		err = closed
	}
	return err
}

func (s *steps) database() error {
	options := s.options
	options.DB = 3
	third := redis.NewClient(&options)
	err := first(
		func() error { return third.Set(s.ctx, "smoke:db", "three", 0).Err() },
		func() error { return expect(third.Get(s.ctx, "smoke:db").Result())("three") },
		func() error { return expect(s.client.Get(s.ctx, "smoke:db").Err(), nil)(redis.Nil) },
	)
	if closed := third.Close(); err == nil {
		err = closed
	}
	return err
}

func (s *steps) farKeys() error {
	err := first(
		func() error { return s.client.SAdd(s.ctx, "a", "1", "2").Err() },
		func() error { return s.client.SAdd(s.ctx, "b", "2", "3").Err() },
	)
	if err != nil {
		return err
	}
	union, err := s.client.SUnion(s.ctx, "a", "b").Result()
	if err != nil {
		return expect(s.target == "shards" && strings.Contains(strings.ToLower(err.Error()), "slot"), nil)(true)
	}
	sort.Strings(union)
	return expect(union, nil)([]string{"1", "2", "3"})
}

func (s *steps) error() error {
	err := s.client.Incr(s.ctx, "smoke:l").Err()
	if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		return fmt.Errorf("INCR of a list: %v", err)
	}
	return s.connect()
}

// The first failure of several checks, each run only when those before it have passed.
func first(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// Takes what a call returned; the function it gives compares that with what was wanted.
func expect(found interface{}, err error) func(wanted interface{}) error {
	return func(wanted interface{}) error {
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(found, wanted) {
			return fmt.Errorf("wanted %.500v, found %.500v", wanted, found)
		}
		return nil
	}
}
