package benchmarks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Some measurements need processes of their own: this program again, with these in its environment.
const (
	childEnv = "GINLIMIT_BENCHMARKS_CHILD" // what it is to be: a name of children
	childOf  = "GINLIMIT_BENCHMARKS_NAME"  // the candidate
	childAt  = "GINLIMIT_BENCHMARKS_REDIS" // the address of Redis
)

var children = map[string]func(name, addr string) error{
	"memory":   func(name, addr string) error { return serve(memoryServers(), name, addr) },
	"redis":    func(name, addr string) error { return serve(redisServers(), name, addr) },
	"instance": instance,
}

// Child does the work of a child, and ends the process, if this process is one. Call it first in
// main, or in TestMain.
func Child() {
	kind := os.Getenv(childEnv)
	if kind == "" {
		return
	}
	if err := children[kind](os.Getenv(childOf), os.Getenv(childAt)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is a process that was started. It ends when its standard input does, so also when this
// process ends.
type child struct {
	Name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	hello string // its first line
}

func (c child) name() string { return c.Name }

// spawn starts a child and waits until it is ready. It ends with the section.
func (b *bench) spawn(kind, name string) (child, error) {
	self, err := os.Executable()
	if err != nil {
		return child{}, err
	}
	c := child{Name: name, cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+kind, childOf+"="+name, childAt+"="+b.server.Addr())
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return c, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return c, err
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		return c, err
	}
	b.closers = append(b.closers, func() { _, _ = c.in.Close(), c.cmd.Wait() })
	c.hello, err = c.line()
	return c, err
}

func (c child) line() (string, error) {
	if !c.out.Scan() {
		return "", errors.Join(errors.New("the process ended"), c.out.Err())
	}
	return c.out.Text(), nil
}

// ask writes a line and returns the numbers of the answer.
func (c child) ask(line string, numbers ...any) error {
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		return err
	}
	return c.answer(numbers...)
}

func (c child) answer(numbers ...any) error {
	line, err := c.line()
	if err == nil {
		_, err = fmt.Sscan(line, numbers...)
	}
	return err
}

// httpQuota is what each address has over HTTP: the addresses that are to pass never use it up, the
// one that is to be refused has done so before.
var httpQuota = Quota{2000, time.Hour}

// spentAddress is the client that is over its limit.
const spentAddress = "203.0.113.7"

// serve is a Gin application that tells its address and serves until its standard input ends. For
// each line there it tells the seconds of CPU that it used.
func serve(middlewares []Middleware, name, addr string) error {
	i := slices.IndexFunc(middlewares, func(m Middleware) bool { return m.Name == name })
	if i < 0 {
		return fmt.Errorf("ginlimit: no middleware %q", name)
	}
	r := engine(middlewares[i].New(addr, httpQuota))
	if !strings.HasPrefix(name, floorPrefix) {
		spend(r)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	fmt.Println(l.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(ownCPU().Seconds())
	}
	return server.Close()
}

// spend uses up the limit of spentAddress. Some limiters let more pass than that: it goes on until
// many in a row were refused.
func spend(r http.Handler) {
	for refused := 0; refused < 100; refused++ {
		req := httptest.NewRequest(http.MethodGet, "/ping", nil)
		req.RemoteAddr = "127.0.0.1:4321"
		req.Header.Set("X-Forwarded-For", spentAddress)
		w := httptest.NewRecorder()
		if r.ServeHTTP(w, req); w.Code == http.StatusOK {
			refused = 0
		}
	}
}

// instance is one process of an application that decides in Redis, from 16 goroutines. For each
// line with a duration on its standard input it works for so long and answers with the number of
// decisions and the seconds that they took.
func instance(name, addr string) error {
	runtime.GOMAXPROCS(len(cores()))
	candidates := inRedis()
	i := slices.IndexFunc(candidates, func(l Limiter) bool { return l.Name == name })
	if i < 0 {
		return fmt.Errorf("ginlimit: no limiter %q", name)
	}
	take, stop := candidates[i].New(addr, oddQuota)
	defer stop()
	var once sync.Once
	keys := manyKeys()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		d, err := time.ParseDuration(lines.Text())
		if err != nil {
			return err
		}
		once.Do(func() { _, _, err = ask(take, 16, d/5, keys, true) })
		if err != nil {
			return err
		}
		began := time.Now()
		waits, _, err := ask(take, 16, d, keys, true)
		if err != nil {
			return err
		}
		fmt.Println(len(waits), time.Since(began).Seconds())
	}
	return nil
}
