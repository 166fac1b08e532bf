package webhook

import (
	"net"
	"sync"
)

// An open connection holds about 50 KiB, and more while a request is read.
const (
	maxConnections = 1024
	// maxConnectionsPerAddress keeps one pod from taking all connections.
	maxConnectionsPerAddress = 256
)

// connectionLimiter closes new connections while too many are open, in all or from one address.
type connectionLimiter struct {
	net.Listener
	mu        sync.Mutex
	total     int
	byAddress map[string]int
}

func limitConnections(listener net.Listener) net.Listener {
	return &connectionLimiter{Listener: listener, byAddress: map[string]int{}}
}

// Accept returns the next connection within the limits.
func (l *connectionLimiter) Accept() (net.Conn, error) {
	for {
		connection, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := addressOf(connection)
		if l.add(address) {
			return &countedConnection{Conn: connection, closed: func() { l.remove(address) }}, nil
		}
		_ = connection.Close()
	}
}

func (l *connectionLimiter) add(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total == maxConnections || l.byAddress[address] == maxConnectionsPerAddress {
		return false
	}
	l.total++
	l.byAddress[address]++
	return true
}

func (l *connectionLimiter) remove(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byAddress[address]--; l.byAddress[address] == 0 {
		delete(l.byAddress, address)
	}
}

func addressOf(connection net.Conn) string {
	host, _, err := net.SplitHostPort(connection.RemoteAddr().String())
	if err != nil {
		return connection.RemoteAddr().String()
	}
	return host
}

// countedConnection calls closed once, when it is closed first.
type countedConnection struct {
	net.Conn
	once   sync.Once
	closed func()
}

// Close closes the connection.
func (c *countedConnection) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
