// The talk's first client: one fixed prompt, the image into output.png.
//
//	go run ./examples/go/fixed [URL]
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	url := "http://localhost:8000/txt2img/"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	body, err := json.Marshal(map[string]any{
		"prompt":              "A potrait of a man , comic styled, detailed hair, smiling face",
		"negative_prompt":     "nsfw, bad eyes, bad teeth",
		"num_inference_steps": 40,
		"width":               512,
		"height":              512,
		"guidance_scale":      7.5,
	})
	if err != nil {
		log.Fatal(err)
	}
	answer, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		log.Fatalf("HTTP %d: %s", answer.StatusCode, text)
	}
	file, err := os.Create("output.png")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := io.Copy(file, answer.Body); err != nil {
		log.Fatal(err)
	}
}
