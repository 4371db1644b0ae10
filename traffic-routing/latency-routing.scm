;;; latency-routing.scm --- the order of the candidates by round trip.
;;;
;;; Asked:    for each client class when facts change; never during a request.
;;; Returns:  the candidates' ids, best first.
;;; On error: traffic follows the last version that loaded.

(require "repomind/prelude.scm")
(require "repomind/regions.scm")
(require "repomind/routing.scm")
(require "repomind/invariants.scm")
(require "repomind/testing.scm")
(require (only-in "region-config/region-mapping.scm" region-candidates))
(require (only-in "compliance/data-residency.scm" residency))
(provide policy-api rank-regions)

(define policy-api 1)

;; Round trips within a tenth of each other are one to a user; following every
;; flicker would only move sessions. So near-equals keep the candidates' order.
(define near-equal 1.10)

;; A quick region that lacks one of these does not overtake one that has them.
(define everyday-features '(full-api websockets))

;; A region of which nothing is known comes after all that are measured.
(define unknown 1000000.0)

;;@doc
;; The candidates by the round trip that the client would see, complete regions first.
(define (rank-regions client candidates)
  (define nearest (nearest-region client candidates))
  (define (complete? region) (region-has-features? region everyday-features))
  (define (round-trip region) (or (rtt-estimate client region nearest) unknown))
  (define (by-round-trip regions) (sort-within near-equal round-trip regions))
  (define bare (filter (lambda (region) (not (complete? region))) candidates))
  (region-ids (append (by-round-trip (filter complete? candidates)) (by-round-trip bare))))

;; The whole way: the mapping's candidates, in the order of this file.
(define (ranked-for client regions)
  (define ids (region-candidates client regions))
  (rank-regions client (map (lambda (id) (first-that (lambda (region) (equal? (region-id region) id)) regions)) ids)))

(define-invariant "whatever is down, a client is served where a region serves, and refused only where none does"
  (for-all (client outage)
    (define chosen (first-serving (ranked-for client outage) outage))
    (if (null? (serving-ids outage)) (not chosen) (if (member chosen (serving-ids outage)) #t #f))))

;; What the law lets hold a person's data, best first: whoever is served is served lawfully.
(define-invariant "whatever is down, a lawful region that serves is found, or none is lawful"
  (for-all (client outage)
    (define ruling (residency (sample-record #:class 'personal #:law (client-law client))))
    (define (lawful? id) (holds-in? ruling id))
    (equal? (if (any lawful? (serving-ids outage)) #t #f)
            (if (first-serving (filter lawful? (ranked-for client outage)) outage) #t #f))))

;; A client beside region a: b is measured at `to-b` ms from there, c at `to-c`.
(define (ranked to-b to-c)
  (define a (sample-region 'a #:rtts (list (cons 'b to-b) (cons 'c to-c))))
  (rank-regions (sample-client #:country "US" #:latitude 0.0 #:longitude 0.0)
                (list a (sample-region 'b #:longitude 60.0) (sample-region 'c #:longitude 90.0))))

(test-module "latency-routing"
  (check-equal? "the quicker region goes first, however far it is" (ranked 120.0 80.0) '(a c b))
  (check-equal? "near-equals keep the order of the candidates" (ranked 84.0 80.0) '(a b c))
  (check-equal? "just outside the band they do not" (ranked 90.0 80.0) '(a c b))
  (check-equal? "a client of no known place gets the candidates as they stand"
                (rank-regions (sample-client) (list (sample-region 'b) (sample-region 'a))) '(b a))
  (check-equal? "what was never measured goes by distance"
                (rank-regions (sample-client #:latitude 0.0 #:longitude 0.0)
                              (list (sample-region 'far #:longitude 90.0) (sample-region 'near #:longitude 10.0)))
                '(near far))
  (check-equal? "a region without websockets is not preferred for being close"
                (rank-regions (sample-client #:latitude 0.0 #:longitude 0.0)
                              (list (sample-region 'full #:longitude 50.0)
                                    (sample-region 'bare #:features '(full-api))))
                '(full bare)))
