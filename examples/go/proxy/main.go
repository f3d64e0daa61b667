// The talk's second client: a proxy that forwards its users' bodies.
//
//	go run ./examples/go/proxy [URL] [ADDRESS]
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

const maxBodyBytes = 64 * 1024

func main() {
	url, address := "http://localhost:8000/txt2img/", "127.0.0.1:8080"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	if len(os.Args) > 2 {
		address = os.Args[2]
	}
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body := http.MaxBytesReader(w, r.Body, maxBodyBytes)
		request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, url, body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		request.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}
