//! The pool runs every job, and the requests of a connection are answered one at a time, in order, none left out.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use shuttle::rand::Rng;
use tiny_http::TestRequest;

use super::commit::{Book, Writer, context, pulse};
use super::explore;
use crate::commit::worker;
use crate::door::DoorStats;
use crate::intake::exchange::{Exchange, Job, Turns};
use crate::intake::pool::Pool;
use crate::intake::respond::Reply;
use crate::queue::{Acknowledge, QueueItem, QueueSender, Receipt, Refused, queue};
use crate::sync::{Arc, Condvar, thread};

const CONNECTIONS: usize = 2;
const REQUESTS: usize = 4;

/// Jobs that were run, for somebody who waits for them.
#[derive(Default)]
struct Done {
    jobs: crate::sync::Mutex<Vec<usize>>,
    changed: Condvar,
}

/// Shuttle finds it if a job is left to threads that have ended: then the wait is for ever.
fn every_job_is_run(threads_max: usize) {
    let done = Arc::new(Done::default());
    let pool = Arc::new(Pool::new(threads_max, {
        let done = done.clone();
        move |job: usize| {
            thread::yield_now();
            done.jobs.lock().unwrap().push(job);
            done.changed.notify_all();
        }
    }));
    let clients = [0, 1].map(|client| {
        let pool = pool.clone();
        thread::spawn(move || {
            for nth in 0..2 {
                pool.submit(client * 2 + nth);
                // Time for threads without a job to end.
                (0..4).for_each(|_| thread::yield_now());
            }
        })
    });
    clients.into_iter().for_each(|client| client.join().unwrap());
    let jobs = done.jobs.lock().unwrap();
    let mut jobs = done.changed.wait_while(jobs, |jobs| jobs.len() < 4).unwrap();
    jobs.sort_unstable();
    assert_eq!(*jobs, [0, 1, 2, 3]);
}

#[test]
fn no_job_is_left_behind_by_threads_that_end() {
    explore(|| every_job_is_run(1));
    explore(|| every_job_is_run(2));
}

/// Which request of each connection has its turn, and how many have had it.
#[derive(Default)]
struct Sheet([Mutex<(Option<usize>, usize)>; CONNECTIONS]);

impl Sheet {
    fn begin(&self, exchange: &Exchange) {
        let (connection, number) = place(exchange);
        let mut turn = self.0[connection].lock().unwrap();
        assert_eq!(*turn, (None, number), "request {number} of connection {connection}");
        turn.0 = Some(number);
    }

    fn end(&self, exchange: &Exchange) {
        let (connection, number) = place(exchange);
        let mut turn = self.0[connection].lock().unwrap();
        assert_eq!(*turn, (Some(number), number), "connection {connection}");
        *turn = (None, number + 1);
    }
}

fn place(exchange: &Exchange) -> (usize, usize) {
    let connection = exchange.request().remote_addr().unwrap().port() as usize - 1;
    (connection, exchange.path()[1..].parse().unwrap())
}

/// Answered by a worker, at once or from the pool.
struct Ticket(Exchange, Arc<Sheet>);

impl Acknowledge for Ticket {
    fn acknowledge(self, _: Receipt) {
        let Ticket(exchange, sheet) = self;
        if shuttle::rand::thread_rng().gen_bool(0.5) {
            exchange.reply_from_pool(Reply::stored());
        } else {
            sheet.end(&exchange);
            exchange.reply(Reply::stored());
        }
    }
}

/// What the accept loop does with an exchange, and the pool with a job.
fn take_up(exchange: Exchange, sheet: &Arc<Sheet>, queue: &QueueSender<Ticket>) {
    sheet.begin(&exchange);
    let (connection, number) = place(&exchange);
    let pulses = vec![pulse(connection * REQUESTS + number)];
    let deadline = Instant::now() + Duration::from_secs(3600);
    let item = QueueItem { pulses, deadline, acknowledgement: Ticket(exchange, sheet.clone()) };
    if let Err(Refused::Full(item) | Refused::Closed(item)) = queue.offer(item) {
        item.acknowledgement.0.reply_from_pool(Reply::stored());
    }
}

fn run_job(job: Job, sheet: &Arc<Sheet>, queue: &QueueSender<Ticket>) {
    match job {
        Job::Handle(exchange) => take_up(exchange, sheet, queue),
        Job::Answer(exchange, reply) => {
            sheet.end(&exchange);
            exchange.reply(reply);
        }
        Job::Discard(_) => panic!("nothing was to be discarded"),
    }
}

/// An accept loop, a worker, the pool, and a drain behind the last request.
fn a_drain_behind_pipelined_requests() {
    let (sender, receiver) = queue(2);
    let (sender, sheet) = (Arc::new(sender), Arc::new(Sheet::default()));
    let turns = Turns::new(context().metrics, Arc::new(DoorStats::default()));
    turns.set_pool(Pool::new(1, {
        let (sender, sheet) = (sender.clone(), sheet.clone());
        move |job| run_job(job, &sheet, &sender)
    }));
    let worker = thread::spawn(move || worker::run(&receiver, &mut Writer(Arc::new(Book::default())), &context()));
    let accept_loop = thread::spawn({
        let (turns, sender, sheet) = (turns.clone(), sender.clone(), sheet.clone());
        move || {
            for number in 0..REQUESTS {
                for connection in 0..CONNECTIONS {
                    let client = SocketAddr::from(([127, 0, 0, 1], connection as u16 + 1));
                    let request = TestRequest::new().with_remote_addr(client).with_path(&format!("/{number}"));
                    match turns.arrive(request.into()) {
                        Some(exchange) if connection == 0 => take_up(exchange, &sheet, &sender),
                        Some(exchange) => exchange.handle_in_pool(),
                        None => {}
                    }
                }
            }
        }
    });
    accept_loop.join().unwrap();
    while turns.in_flight() > 0 {
        thread::yield_now();
    }
    sender.close();
    worker.join().unwrap();
    assert_eq!(sender.waiting(), 0);
    for turn in &sheet.0 {
        assert_eq!(*turn.lock().unwrap(), (None, REQUESTS), "requests without an answer");
    }
}

#[test]
fn pipelined_requests_are_answered_one_at_a_time_and_all() {
    explore(a_drain_behind_pipelined_requests);
}
