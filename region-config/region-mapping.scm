;;; region-mapping.scm --- which regions may serve a client, best first.
;;;
;;; Asked:    for each client class when facts change; never during a request.
;;; Returns:  the ids of the regions, best first. Leave none out that could serve
;;;           in need: the runtime passes over those that are down.
;;; On error: traffic follows the last version that loaded.

(require "repomind/prelude.scm")
(require "repomind/regions.scm")
(require "repomind/testing.scm")
(provide policy-api region-candidates)

(define policy-api 1)

;; What a region must offer to be anyone's first choice.
(define everyday-features '(full-api websockets))

(define (complete? region) (region-has-features? region everyday-features))

;; A region of which the client's distance is not known counts as far away.
(define (distance region client) (or (region-distance region client) 20038))

;; The features first, then the continent (a border crossed is a law crossed),
;; then the distance; without a distance the primary, then the larger region.
(define (better? client)
  (define (near? region) (same-continent? region client))
  (lambda (a b)
    (cond [(not (equal? (complete? a) (complete? b))) (complete? a)]
          [(not (equal? (near? a) (near? b))) (near? a)]
          [(not (= (distance a client) (distance b client))) (< (distance a client) (distance b client))]
          [(not (equal? (region-primary? a) (region-primary? b))) (region-primary? a)]
          [else (> (region-max-instances a) (region-max-instances b))])))

;;@doc
;; All regions, best first for this client class.
(define (region-candidates client regions)
  (region-ids (sort-by (better? client) regions)))

(define virginia (sample-region 'us-east #:primary #t #:max-instances 100 #:latitude 38.9 #:longitude -77.4))
(define ireland (sample-region 'eu-west #:country "IE" #:latitude 53.3 #:longitude -6.3))
(define singapore (sample-region 'ap-southeast #:country "SG" #:latitude 1.4 #:longitude 103.8))
(define mumbai (sample-region 'ap-south #:country "IN" #:features '(full-api) #:latitude 19.1 #:longitude 72.9))
(define everywhere (list singapore ireland virginia mumbai))

(test-module "region-mapping"
  (check-equal? "a German client goes to Ireland first"
                (region-candidates (sample-client #:country "DE" #:continent "EU" #:latitude 51.2 #:longitude 10.4) everywhere)
                '(eu-west us-east ap-southeast ap-south))
  (check-equal? "an Icelander stays in Europe and an Indian is not given a region without websockets first"
                (list (car (region-candidates (sample-client #:country "IS" #:continent "EU" #:latitude 65.0 #:longitude -18.0) everywhere))
                      (car (region-candidates (sample-client #:country "IN" #:continent "AS" #:latitude 21.0 #:longitude 78.0) everywhere)))
                '(eu-west ap-southeast))
  (check-equal? "a client of no known place goes to the primary, and no region is left out"
                (region-candidates (sample-client) everywhere)
                '(us-east ap-southeast eu-west ap-south)))
