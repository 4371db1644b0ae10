;;; routing.scm --- round trips, as measured and as estimated.
;;;
;;; Regions measure the round trip to each other; nobody measures it to the
;;; clients. What a client would see is estimated: to the region nearest to it
;;; by distance, and from there as measured.

(require-builtin repomind/host)
(require "repomind/regions.scm")
(provide region-rtt nearest-region distance->rtt rtt-estimate)

;; From the host:

;;@doc (region-rtt from to)
;; The measured round trip in ms, a float; 0.0 to itself, #f where nobody measured it.
;; > (region-rtt (sample-region 'a #:rtts '((b . 70.0))) (sample-region 'b))
;; = 70.0

;;@doc (nearest-region client regions)
;; The region closest to the client; #f when there is none or the client's place is not known.
;; > (region-id (nearest-region (sample-client #:latitude 0.0 #:longitude 0.0) (list (sample-region 'far #:longitude 90.0) (sample-region 'near))))
;; = near

;; Kilometres of great-circle distance that one millisecond of round trip covers.
;; The median over 420 pairs of AWS regions is 59.
(define kilometres-a-millisecond 60.0)

;;@doc
;; The round trip, in ms, that a distance in km suggests; #f for #f.
;; > (distance->rtt 600)
;; = 10.0
(define (distance->rtt kilometres)
  (and kilometres (/ kilometres kilometres-a-millisecond)))

;;@doc
;; The round trip, in ms, that the client would see to the region, given the one
;; nearest to it (or #f); #f when nothing is known.
;; > (rtt-estimate (sample-client #:latitude 0.0 #:longitude 0.0) (sample-region 'a) (sample-region 'a))
;; = 0.0
(define (rtt-estimate client region nearest)
  (define access (and nearest (distance->rtt (region-distance nearest client))))
  (define onward (and nearest (region-rtt nearest region)))
  (cond [(not nearest) #f]
        [(equal? (region-id nearest) (region-id region)) access]
        [onward (+ access onward)]
        [else (distance->rtt (region-distance region client))]))
