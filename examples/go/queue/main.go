// The talk's third client: many users at once, a bounded queue in front, an error when it is full.
//
//	go run ./examples/go/queue [URL] [HOW_MANY]
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

const (
	queueSize = 100
	workers   = 4
)

func main() {
	url, howMany := "http://localhost:8000/txt2img/", 120
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	if len(os.Args) > 2 {
		howMany, _ = strconv.Atoi(os.Args[2])
	}
	waiting := make(chan int, queueSize)
	var done sync.WaitGroup
	for range workers {
		done.Add(1)
		go func() {
			defer done.Done()
			for seed := range waiting {
				body := fmt.Sprintf(`{"prompt": "red apple", "seed": %d, "num_inference_steps": 4}`, seed)
				answer, err := http.Post(url, "application/json", strings.NewReader(body))
				if err != nil {
					fmt.Printf("%d: %v\n", seed, err)
					continue
				}
				image, _ := io.ReadAll(answer.Body)
				answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					fmt.Printf("%d: %d bytes\n", seed, len(image))
				} else {
					fmt.Printf("%d: HTTP %d\n", seed, answer.StatusCode)
				}
			}
		}()
	}
	for seed := range howMany {
		select {
		case waiting <- seed:
		default:
			fmt.Printf("%d: HTTP 429, the queue is full\n", seed)
		}
	}
	close(waiting)
	done.Wait()
}
