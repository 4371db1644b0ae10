;;; failover.scm --- when a region is unwell, and what follows.
;;;
;;; Asked:    whenever a region's health changes; never during a DNS query.
;;; Returns:  'steady or 'unwell; and, for the plan, who leaves and who is promoted.
;;;           The runtime's bounds decide what follows: it takes a silent region out
;;;           by itself and never the last one.
;;; On error: the runtime keeps the last version that loaded.

(require "repomind/prelude.scm")
(require "repomind/health.scm")
(require "repomind/regions.scm")
(require "repomind/invariants.scm")
(require "repomind/testing.scm")
(provide policy-api region-verdict failover-plan)

(define policy-api 1)

;; Probes are sent every 50 ms. Two losses in ten is ordinary weather here; more than
;; three in ten, or six in a row, has meant trouble.
(define share-tolerated 3/10)
(define run-tolerated 5)

(define (shaky? observation)
  (or (> (loss-share observation) share-tolerated)
      (> (observation-losses-in-a-row observation) run-tolerated)))

;;@doc
;; 'steady or 'unwell, for one region as its peers see it. More than half of the
;; peers must agree: one of them may be the one with the broken link.
(define (region-verdict observations)
  (if (most? shaky? observations) 'unwell 'steady))

(define (roomier? a b) (> (region-max-instances a) (region-max-instances b)))

;;@doc
;; For a list of regions: drain (ids to empty), shift (per cent moved at a time) and
;; promote (the id to take over as primary, or #f while the primary serves).
(define (failover-plan regions)
  (define serving (filter serves? regions))
  (define lost (filter (lambda (region) (not (serves? region))) regions))
  (define heir? (and (any region-primary? lost) (not (null? serving))))
  (list (cons 'drain (region-ids lost))
        (cons 'shift 25)
        (cons 'promote (if heir? (region-id (best-by roomier? serving)) #f))))

(define (part key world) (cdr (assoc key (failover-plan world))))

(define-invariant "no region that serves is drained"
  (for-all (world)
    (not (any (lambda (id) (member id (serving-ids world))) (part 'drain world)))))

(define-invariant "traffic moves by one to a hundred per cent, and only a region that serves is promoted"
  (for-all (world)
    (define heir (part 'promote world))
    (and (<= 1 (part 'shift world) 100) (or (not heir) (if (member heir (serving-ids world)) #t #f)))))

(define calm (sample-observation #:losses 2 #:losses-in-a-row 1))
(define bad (sample-observation #:losses 4 #:losses-in-a-row 1))
(define silent (sample-observation #:probes 128 #:losses 6 #:losses-in-a-row 6))
(define (after losses probes)
  (region-verdict (list (sample-observation #:probes probes #:losses losses))))
(define (plan state)
  (failover-plan (list (sample-region 'us-east #:primary #t #:state state)
                       (sample-region 'eu-west #:country "IE" #:max-instances 60)
                       (sample-region 'ap-southeast #:country "SG"))))

(test-module "failover"
  (check-equal? "two losses in ten are weather" (region-verdict (list calm calm)) 'steady)
  (check-equal? "four are not" (region-verdict (list bad bad)) 'unwell)
  (check-equal? "nor are six in a row" (region-verdict (list silent silent)) 'unwell)
  (check-equal? "one peer of two with a broken link condemns nobody" (region-verdict (list silent calm)) 'steady)
  (check-property "a region that lost more is never steadier"
                  ([probes (any-number 1 128)] [few (any-number 0 probes)] [more (any-number few probes)])
                  (or (equal? (after few probes) 'steady) (equal? (after more probes) 'unwell)))
  (check-equal? "what nobody observed is left alone" (region-verdict '()) 'steady)
  (check-equal? "a lost primary is drained and the roomiest region promoted"
                (plan 'down) '((drain . (us-east)) (shift . 25) (promote . eu-west)))
  (check-equal? "a primary that merely loses probes stays" (plan 'suspect) '((drain . ()) (shift . 25) (promote . #f))))
