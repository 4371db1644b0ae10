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

;; Half the Earth's circumference, in km: as far away as a place can be.
(define farthest 20038)

;; The features first, then the continent (a border crossed is a law crossed),
;; then the distance; without a distance the primary, then the larger region.
(define (how-far-from-ideal client)
  (lambda (region)
    (list (if (complete? region) 0 1)
          (if (same-continent? region client) 0 1)
          (or (region-distance region client) farthest)
          (if (region-primary? region) 0 1)
          (- 0 (region-max-instances region)))))

;;@doc
;; All regions, best first for this client class.
(define (region-candidates client regions)
  (region-ids (sort-on (how-far-from-ideal client) regions)))

(define virginia (sample-region 'us-east #:primary #t #:max-instances 100 #:latitude 38.9 #:longitude -77.4))
(define ireland (sample-region 'eu-west #:country "IE" #:latitude 53.3 #:longitude -6.3))
(define singapore (sample-region 'ap-southeast #:country "SG" #:latitude 1.4 #:longitude 103.8))
(define mumbai (sample-region 'ap-south #:country "IN" #:features '(full-api) #:latitude 19.1 #:longitude 72.9))
(define (client country continent latitude longitude)
  (sample-client #:country country #:continent continent #:latitude latitude #:longitude longitude))
(define everywhere (list singapore ireland virginia mumbai))

(test-module "region-mapping"
  (check-equal? "a German client goes to Ireland first"
                (region-candidates (client "DE" "EU" 51.2 10.4) everywhere)
                '(eu-west us-east ap-southeast ap-south))
  (check-equal? "an Icelander stays in Europe"
                (car (region-candidates (client "IS" "EU" 65.0 -18.0) everywhere)) 'eu-west)
  (check-equal? "an Indian is not sent to a region without websockets first"
                (car (region-candidates (client "IN" "AS" 21.0 78.0) everywhere)) 'ap-southeast)
  (check-property "no region is left out, whoever asks"
                  ([client (any-client)] [regions (any-list 4 any-region)])
                  (= (length (region-candidates client regions)) (length regions)))
  (check-equal? "a client of no known place goes to the primary, and no region is left out"
                (region-candidates (sample-client) everywhere)
                '(us-east ap-southeast eu-west ap-south)))
