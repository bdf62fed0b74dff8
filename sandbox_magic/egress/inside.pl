# The near end of egress in a sandbox, where there is perl: perl inside.pl PORT. It does what inside.py does; see there.
use strict;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);
use Fcntl;
use Errno;
my ($port) = @ARGV;
my ($WINDOW, $PIECE, $MOST) = (262144, 32768, 64);
my ($OPEN, $DATA, $END, $TAKEN, $GONE) = (1, 2, 3, 4, 5);
$SIG{$_} = 'IGNORE' for qw(PIPE HUP INT QUIT TERM);
my (%clients, $last);

sub frame {
    my ($kind, $number, $data) = @_;
    my $whole = pack('CNn', $kind, $number, length $data) . $data;
    while (length $whole) {
        my $sent = syswrite STDOUT, $whole;
        if (defined $sent) { substr($whole, 0, $sent) = '' }
        elsif (!$!{EINTR}) { exit 0 }
    }
}

sub gone {
    my ($number, $quiet) = @_;
    my $client = delete $clients{$number} or return;
    close $client->{socket};
    frame($GONE, $number, '') unless $quiet;
}

sub flush {
    my ($number, $client) = @_;
    if (length $client->{held}) {
        my $sent = syswrite $client->{socket}, $client->{held};
        if (!defined $sent) { gone($number) unless $!{EAGAIN} || $!{EINTR}; return }
        substr($client->{held}, 0, $sent) = '';
        frame($TAKEN, $number, pack('N', $sent));
    }
    if ($client->{ending} && !length $client->{held}) {
        $client->{ending} = 0;
        shutdown $client->{socket}, 1;
        $client->{closed} = 1;
        gone($number, 1) if $client->{ended};
    }
}

sub hear {
    my ($number, $client) = @_;
    my $most = $client->{credit} < $PIECE ? $client->{credit} : $PIECE;
    my $got = sysread $client->{socket}, my $data, $most;
    if (!defined $got) { gone($number) unless $!{EAGAIN} || $!{EINTR}; return }
    if ($got) { $client->{credit} -= $got; frame($DATA, $number, $data); return }
    $client->{ended} = 1;
    frame($END, $number, '');
    gone($number, 1) if $client->{closed};
}

socket(my $door, PF_INET, SOCK_STREAM, 0) or die;
setsockopt($door, SOL_SOCKET, SO_REUSEADDR, 1);
unless (bind($door, sockaddr_in($port, INADDR_LOOPBACK)) && listen($door, 128)) {
    syswrite STDOUT, "port $port is taken: $!\n";
    exit 1;
}
socket(my $try, PF_INET, SOCK_STREAM, 0);  # a loopback that is down lets us bind, but nobody connect
unless (connect($try, sockaddr_in($port, INADDR_LOOPBACK)) && accept(my $self, $door)) {
    syswrite STDOUT, "loopback\n";
    exit 1;
}
close $try;
syswrite STDOUT, "ready\n";
my $heard = '';
while (1) {
    my ($read, $write) = ('', '');
    vec($read, fileno(STDIN), 1) = 1;
    vec($read, fileno($door), 1) = 1 if keys %clients < $MOST;
    for my $client (values %clients) {
        my $fd = fileno $client->{socket};
        vec($read, $fd, 1) = 1 if $client->{credit} && !$client->{ended};
        vec($write, $fd, 1) = 1 if length $client->{held};
    }
    next if select($read, $write, undef, undef) < 0;
    for my $number (keys %clients) {
        my $client = $clients{$number};
        my $fd = fileno $client->{socket};
        flush($number, $client) if vec($write, $fd, 1);
        hear($number, $client) if $clients{$number} && vec($read, $fd, 1);
    }
    if (vec($read, fileno($door), 1) && accept(my $socket, $door)) {
        setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
        fcntl($socket, F_SETFL, O_NONBLOCK | fcntl($socket, F_GETFL, 0));
        $clients{++$last} = {socket => $socket, held => '', credit => $WINDOW};
        frame($OPEN, $last, '');
    }
    next unless vec($read, fileno(STDIN), 1);
    sysread(STDIN, $heard, 65536, length $heard) or exit 0;
    while (length $heard >= 7) {
        my ($kind, $number, $length) = unpack 'CNn', $heard;
        last if length $heard < 7 + $length;
        my $data = substr($heard, 7, $length);
        substr($heard, 0, 7 + $length) = '';
        my $client = $clients{$number} or next;
        if ($kind == $DATA) { $client->{held} .= $data; flush($number, $client) }
        elsif ($kind == $END) { $client->{ending} = 1; flush($number, $client) }
        elsif ($kind == $TAKEN) { $client->{credit} += unpack 'N', $data }
        elsif ($kind == $GONE) { gone($number, 1) }
    }
}
