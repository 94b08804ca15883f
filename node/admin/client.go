package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/mozzie-mqtt/mozzie/node/config"
)

// maxAnswer bounds what a client reads, in bytes: the peers of the largest swarm, and then some.
const maxAnswer = 64 << 20

// Client asks a node through its API.
type Client struct {
	address string
	token   string
	http    *http.Client
}

// NewClient returns a client for the node at an address, as Options.Address or Server.Address has it. It
// connects at the first request.
func NewClient(address string) (*Client, error) {
	network, dial, err := config.AdminAddress(address)
	if err != nil {
		return nil, err
	}
	return &Client{address: address, http: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy:                 nil, // a proxy has no business with loopback
			DisableKeepAlives:     true,
			ExpectContinueTimeout: time.Second,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, dial)
			},
		},
	}}, nil
}

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "/api/v1/status", &s)
}

// Peers asks for the nodes that it knows.
func (c *Client) Peers(ctx context.Context) (p Peers, err error) {
	return p, c.get(ctx, "/api/v1/peers", &p)
}

// Locate asks who serves a topic.
func (c *Client) Locate(ctx context.Context, topic string) (l Location, err error) {
	return l, c.get(ctx, "/api/v1/locate?topic="+url.QueryEscape(topic), &l)
}

// Invite asks for an invite.
func (c *Client) Invite(ctx context.Context) (string, error) {
	var i Invite
	err := c.get(ctx, "/api/v1/invite", &i)
	return i.Invite, err
}

// Config asks for the effective configuration, as YAML.
func (c *Client) Config(ctx context.Context) (string, error) {
	body, err := c.do(ctx, http.MethodGet, "/api/v1/config", nil)
	return string(body), err
}

// Reload has the node read again what may change while it runs.
func (c *Client) Reload(ctx context.Context) (r Reloaded, err error) {
	return r, c.ask(ctx, http.MethodPost, "/api/v1/reload", &r)
}

func (c *Client) get(ctx context.Context, path string, answer any) error {
	return c.ask(ctx, http.MethodGet, path, answer)
}

func (c *Client) ask(ctx context.Context, method, path string, answer any) error {
	return c.askWith(ctx, method, path, nil, answer)
}

func (c *Client) askWith(ctx context.Context, method, path string, with io.Reader, answer any) error {
	body, err := c.do(ctx, method, path, with)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("ask the node at %s: what answers there is no node: %w", c.address, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, with io.Reader) ([]byte, error) {
	resp, err := c.send(ctx, method, path, with)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.explain(err)
	}
	return body, nil
}

// send sends a request and returns the answer, which is good, with its body still to be read and closed.
func (c *Client) send(ctx context.Context, method, path string, with io.Reader) (*http.Response, error) {
	// The host is for the request only: where to connect to is the dialer's.
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, with)
	if err != nil {
		return nil, fmt.Errorf("ask the node at %s: %w", c.address, err)
	}
	if with != nil {
		r.Header.Set("Content-Type", bodyType(path))
		r.Header.Set("Expect", "100-continue") // who sends what is refused may be cut off before it reads why
	}
	if c.token != "" && needsToken(r) {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.explain(err)
	}
	refused := &Error{}
	if json.Unmarshal(body, refused) != nil || refused.Message == "" {
		return nil, fmt.Errorf("ask the node at %s: it answers %s", c.address, resp.Status)
	}
	return nil, refused
}

// ErrUnreachable says that nothing answers at the node's address.
var ErrUnreachable = errors.New("no node answers")

func (c *Client) explain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w at %s: is it running there? (\"mozzie run\" starts one; --data or --admin says which one is meant)", ErrUnreachable, c.address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("no permission to ask the node at %s: be the user that it runs as, or root", c.address)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), strings.Contains(err.Error(), "malformed HTTP"):
		return fmt.Errorf("ask the node at %s: what answers there is no administration API; \"mozzie run\" says at its start where that is", c.address)
	}
	return fmt.Errorf("ask the node at %s: %w", c.address, err)
}
