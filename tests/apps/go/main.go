// go-redis: a small shop. Stock in hashes, orders in transactions, a feed by pub/sub, jobs by blocking pops and a stream.
//
// Each step returns an error that says what differed.
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const items = 20

var ctx = context.Background()

var take = redis.NewScript(`
local left = redis.call('HINCRBY', KEYS[1], 'stock', -ARGV[1])
if left < 0 then
  redis.call('HINCRBY', KEYS[1], 'stock', ARGV[1])
  return -1
end
return left`)

func main() {
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("APP_HOST") + ":" + os.Getenv("APP_PORT")})
	fmt.Println("version", redis.Version())
	for _, step := range []func(*redis.Client) error{
		pipeline, script, transaction, watched, manyKeys, scan, feed, pop, stream,
	} {
		if err := step(client); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	if err := client.Close(); err != nil {
		fmt.Println("close:", err)
		os.Exit(1)
	}
}

// Says that a step is done, or what differed.
func done(name string, err error, found, expected interface{}) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !reflect.DeepEqual(found, expected) {
		return fmt.Errorf("%s: expected %v, found %v", name, expected, found)
	}
	fmt.Println("ok", name)
	return nil
}

func names(prefix string) []string {
	var found []string
	for i := 0; i < items; i++ {
		found = append(found, prefix+strconv.Itoa(i))
	}
	return found
}

func pipeline(client *redis.Client) error {
	replies, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, name := range names("item:") {
			pipe.HSet(ctx, name, "stock", 10, "name", name)
		}
		return nil
	})
	made := int64(0)
	for _, reply := range replies {
		made += reply.(*redis.IntCmd).Val()
	}
	return done("a pipeline", err, made, int64(2*items))
}

func script(client *redis.Client) error {
	found := make([]int, 15)
	var failed error
	var mutex sync.Mutex
	var all sync.WaitGroup
	for i := range found {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			left, err := take.Run(ctx, client, []string{"item:1"}, 1).Int()
			mutex.Lock()
			defer mutex.Unlock()
			found[i] = left
			if err != nil {
				failed = err
			}
		}(i)
	}
	all.Wait()
	sort.Ints(found)
	return done("a script, fifteen times", failed, found, []int{-1, -1, -1, -1, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
}

func transaction(client *redis.Client) error {
	replies, err := client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.HSet(ctx, "{order:1}", "item", 3)
		pipe.RPush(ctx, "{order:1}:log", "made")
		pipe.Expire(ctx, "{order:1}", time.Minute)
		return nil
	})
	return done("a transaction", err, len(replies), 3)
}

// Ten at a time add one to a counter that they read first; who was too late tries again.
func watched(client *redis.Client) error {
	add := func() error {
		for {
			err := client.Watch(ctx, func(tx *redis.Tx) error {
				count, err := tx.Get(ctx, "counter").Int()
				if err != nil && err != redis.Nil {
					return err
				}
				_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
					pipe.Set(ctx, "counter", count+1, 0)
					return nil
				})
				return err
			}, "counter")
			if err != redis.TxFailedErr {
				return err
			}
		}
	}
	errors := make(chan error, 10)
	for i := 0; i < cap(errors); i++ {
		go func() { errors <- add() }()
	}
	for i := 0; i < cap(errors); i++ {
		if err := <-errors; err != nil {
			return err
		}
	}
	count, err := client.Get(ctx, "counter").Int()
	return done("a watched transaction", err, count, 10)
}

func manyKeys(client *redis.Client) error {
	var pairs []string
	var expected []interface{}
	for _, name := range names("price:") {
		pairs = append(pairs, name, "of "+name)
		expected = append(expected, "of "+name)
	}
	if err := client.MSet(ctx, pairs).Err(); err != nil {
		return err
	}
	found, err := client.MGet(ctx, names("price:")...).Result()
	return done("many keys", err, found, expected)
}

func scan(client *redis.Client) error {
	seen := map[string]bool{}
	each := client.Scan(ctx, 0, "item:*", 5).Iterator()
	for each.Next(ctx) {
		seen[each.Val()] = true
	}
	return done("a scan", each.Err(), len(seen), items)
}

func feed(client *redis.Client) error {
	reader := client.Subscribe(ctx, "news")
	defer reader.Close()
	if err := reader.PSubscribe(ctx, "local.*"); err != nil {
		return err
	}
	for i := 0; i < 2; i++ {
		if _, err := reader.ReceiveTimeout(ctx, 10*time.Second); err != nil {
			return err
		}
	}
	count, err := client.Publish(ctx, "news", "one").Result()
	if err := done("published", err, count, int64(1)); err != nil {
		return err
	}
	if err := client.Publish(ctx, "local.here", "two").Err(); err != nil {
		return err
	}
	var heard []string
	for i := 0; i < 2; i++ {
		select {
		case message := <-reader.Channel():
			heard = append(heard, message.Channel+" "+message.Payload)
		case <-time.After(10 * time.Second):
			return fmt.Errorf("heard: only %v", heard)
		}
	}
	sort.Strings(heard)
	return done("heard", nil, heard, []string{"local.here two", "news one"})
}

func pop(client *redis.Client) error {
	type answer struct {
		found []string
		err   error
	}
	answers := make(chan answer)
	go func() {
		found, err := client.BLPop(ctx, 20*time.Second, "jobs:high", "jobs:low").Result()
		answers <- answer{found, err}
	}()
	if err := client.RPush(ctx, "jobs:low", "sweep").Err(); err != nil {
		return err
	}
	got := <-answers
	return done("a blocking pop of two lists", got.err, got.found, []string{"jobs:low", "sweep"})
}

func stream(client *redis.Client) error {
	if err := client.XGroupCreateMkStream(ctx, "events", "readers", "$").Err(); err != nil {
		return err
	}
	id, err := client.XAdd(ctx, &redis.XAddArgs{Stream: "events", Values: []string{"kind", "made"}}).Result()
	if err != nil {
		return err
	}
	read, err := client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: "readers", Consumer: "one", Streams: []string{"events", ">"}, Count: 10, Block: 20 * time.Second,
	}).Result()
	if err != nil {
		return err
	}
	first := read[0].Messages[0]
	if err := done("a stream", nil, []interface{}{first.ID, first.Values["kind"]}, []interface{}{id, "made"}); err != nil {
		return err
	}
	count, err := client.XAck(ctx, "events", "readers", id).Result()
	return done("acknowledged", err, count, int64(1))
}
